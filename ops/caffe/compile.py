"""Compiles Caffe with its Python interface."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from ops.caffe.commands import run
from ops.caffe.libraries import Libraries

_PERCENT = re.compile(r"\[ *(\d+)%\]")
_STEP_PERCENT = 10
_FILES_AT_ONCE = 12
# Its macros do not go with the headers of the others.
_ALONE = "src/caffe/3rdparty/hungarian.cpp"
# One compiler at work on Caffe's generated messages takes about this much.
_COMPILER_BYTES = 1 << 30


def compile_caffe(source: Path, work: Path, libraries: Libraries, *, log: Path) -> Path:
    """Compile the target `pycaffe`; what an interrupted build has made is used again.

    Returns:
        The folder of the Python package `caffe`, with `_caffe.so` and `proto/caffe_pb2.py` in it.

    Raises:
        BuildError: The compiler failed.
    """
    _keep_apart(source / _ALONE, source / "python" / "CMakeLists.txt")
    built = work / "build"
    remedy = f"Free memory or space if it ran out; else report it with {log}."
    configure: list[str | Path] = ["cmake", "-S", source, "-B", built, *_options(work, libraries)]
    run(configure, log=log, doing="Configuring Caffe", remedy=remedy)
    make: list[str | Path] = [
        "cmake",
        "--build",
        built,
        "--target",
        "pycaffe",
        "--parallel",
        str(_jobs()),
    ]
    run(make, log=log, doing="Compiling Caffe", remedy=remedy, heard=_progress())
    return source / "python" / "caffe"


def _keep_apart(file: Path, lists: Path) -> None:
    line = f"set_source_files_properties({file} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)\n"
    text = lists.read_text()
    if line not in text:
        lists.write_text(f"{text}\n{line}")


def _options(work: Path, libraries: Libraries) -> list[str]:
    # Caffe's own setup.py has conda install the libraries; these say where the system's are.
    headers = (libraries.python, libraries.numpy, libraries.hdf5)
    folders = (_link_folder(work, libraries.boost_python), libraries.hdf5_library)
    return [
        "-DANACONDA_HOME=/usr",
        f"-DPYTHON_VERSION=python{sys.version_info.major}.{sys.version_info.minor}",
        "-DCMAKE_BUILD_TYPE=Release",
        # Boost's and Protobuf's headers take longer than Caffe's code: read once for many files.
        "-DCMAKE_UNITY_BUILD=ON",
        f"-DCMAKE_UNITY_BUILD_BATCH_SIZE={_FILES_AT_ONCE}",
        "-DCMAKE_CXX_FLAGS=" + " ".join(f"-I{path}" for path in headers),
        "-DCMAKE_SHARED_LINKER_FLAGS="
        + " ".join(["-Wl,--as-needed", *(f"-L{path}" for path in folders)]),
    ]


def _link_folder(work: Path, boost_python: Path) -> Path:
    """Make a folder where Boost.Python has the name that Caffe links it by."""
    folder = work / "lib"
    folder.mkdir(exist_ok=True)
    link = folder / "libboost_python.so"
    link.unlink(missing_ok=True)
    link.symlink_to(boost_python)
    return folder


def _jobs() -> int:
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, memory // _COMPILER_BYTES))


def _progress() -> Callable[[str], None]:
    begin = time.monotonic()
    told = 0

    def heard(line: str) -> None:
        nonlocal told
        found = _PERCENT.match(line)
        if found and (percent := int(found[1])) >= told + _STEP_PERCENT:
            told = percent
            click.echo(f"  {percent:3}%  {time.monotonic() - begin:4.0f} s", err=True)

    return heard
