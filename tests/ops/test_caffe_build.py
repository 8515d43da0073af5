"""The build of pycaffe, as far as it can be tried without building it."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ops.caffe import libraries
from ops.caffe.commands import BuildError, run
from ops.caffe.kept import ensure_wheel
from ops.caffe.recipe import CAFFE, Recipe, cache_folder
from ops.caffe.source import fetch_source

INSTALLER = Path(libraries.__file__).with_name("install_build_deps.sh")


def source_archive(folder: Path) -> Recipe:
    """Write a source package as small as they get, and return the recipe that asks for it."""
    files = {
        "setup.py": "import setuptools; setuptools.setup(name='tiny-caffe', version='1.0')",
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-caffe\nVersion: 1.0\n",
    }
    archive = folder / "tiny-caffe-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"tiny-caffe-1.0/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Recipe("tiny-caffe", "1.0", digest, build=1)


@pytest.fixture
def local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_wheel_is_kept_outside_the_clone_by_what_it_fits(tmp_path: Path) -> None:
    folder = cache_folder(CAFFE, {"XDG_CACHE_HOME": str(tmp_path)})
    assert folder.parent == tmp_path / "lookalike" / "caffe"
    assert folder.name.startswith(f"9.0.2-{CAFFE.build}-cp{sys.version_info.major}")
    home = Path.home() / ".cache" / "lookalike" / "caffe"
    assert cache_folder(CAFFE, {}).parent == home
    assert cache_folder(CAFFE, {"XDG_CACHE_HOME": "relative"}).parent == home


def test_another_build_number_is_another_folder() -> None:
    other = Recipe(CAFFE.project, CAFFE.version, CAFFE.sha256, CAFFE.build + 1)
    assert cache_folder(other) != cache_folder(CAFFE)


def test_the_source_is_fetched_once_and_unpacked(tmp_path: Path, local_index: Path) -> None:
    recipe = source_archive(local_index)
    source = fetch_source(recipe, tmp_path, log=tmp_path / "log")
    assert (source / "setup.py").is_file()
    next(local_index.iterdir()).unlink()
    assert fetch_source(recipe, tmp_path, log=tmp_path / "log") == source


def test_a_source_with_another_digest_is_refused(tmp_path: Path, local_index: Path) -> None:
    recipe = source_archive(local_index)
    other = Recipe(recipe.project, recipe.version, "0" * 64, build=1)
    with pytest.raises(BuildError, match="DO NOT MATCH THE HASHES"):
        fetch_source(other, tmp_path, log=tmp_path / "log")
    assert not (tmp_path / recipe.folder).exists()


@pytest.mark.usefixtures("local_index")
def test_an_index_that_lacks_the_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"Downloading brocolli-caffe[^$]*package index"):
        fetch_source(CAFFE, tmp_path, log=tmp_path / "log")


def test_a_wheel_that_is_kept_is_not_built_again(tmp_path: Path) -> None:
    wheel = tmp_path / f"brocolli_caffe-9.0.2-{CAFFE.build}-cp311-cp311-linux_x86_64.whl"
    wheel.touch()
    assert ensure_wheel(CAFFE, tmp_path) == wheel


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="XDG_CACHE_HOME"):
        ensure_wheel(CAFFE, tmp_path / "file" / "kept")


def test_a_python_without_boost_is_told_which_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m68k-linux-gnu"
    folder.mkdir()
    (folder / "libboost_python39.so").touch()
    monkeypatch.setattr(libraries, "_LIBRARIES", tmp_path)
    monkeypatch.setattr(libraries.sysconfig, "get_config_var", lambda name: folder.name)
    with pytest.raises(BuildError, match=r"for Python 3\.9 and .*PYTHON=python3\.9"):
        libraries.find_libraries()


def test_what_is_missing_and_may_not_be_installed_is_named(tmp_path: Path) -> None:
    for program in ("bash", "dirname", "id"):
        (tmp_path / program).symlink_to(f"/usr/bin/{program}")
    done = subprocess.run(
        [INSTALLER, tmp_path / "no-headers"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends" in done.stderr
    assert "python3-dev" in done.stderr


def test_a_command_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "for line in range(50): print('line', line)\nraise SystemExit(3)"
    heard: list[str] = []
    with pytest.raises(BuildError, match=r"Trying failed[^$]*line 49[^$]*try again") as caught:
        run(
            [sys.executable, "-c", program],
            log=log,
            doing="Trying",
            remedy="try again",
            heard=heard.append,
        )
    assert "line 29" not in str(caught.value)
    assert len(heard) == len(log.read_text().splitlines()) == 50


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no-such-compiler cannot be run: .*; install it"):
        run(["no-such-compiler"], log=tmp_path / "log", doing="Compiling", remedy="install it")


def test_the_installer_of_libraries_says_nothing_where_all_is_there(tmp_path: Path) -> None:
    if not list(Path("/usr/lib").glob("*/libboost_python3*.so")):
        pytest.skip("the libraries are not installed; run `make caffe`")
    headers = tmp_path / "Python.h"
    headers.touch()
    done = subprocess.run([INSTALLER, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
