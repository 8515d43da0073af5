"""The wheel that was built once and is used again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import click
from filelock import FileLock

from ops.caffe.commands import BuildError
from ops.caffe.compile import compile_caffe
from ops.caffe.libraries import find_libraries, install_libraries
from ops.caffe.recipe import Recipe
from ops.caffe.source import fetch_source
from ops.caffe.wheel import pack_wheel


def ensure_wheel(recipe: Recipe, folder: Path) -> Path:
    """Return the wheel that is kept in a folder; build it if there is none.

    Two processes that want it at once build it once.

    Raises:
        BuildError: It could not be built. What was made on the way stays in `folder / "work"`,
            and the next call goes on from there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            return _kept(recipe, folder) or _build(recipe, folder)
    except OSError as error:
        raise BuildError(
            f"{folder} cannot be used: {error}; free some space, or name another folder by "
            "XDG_CACHE_HOME"
        ) from error


def _kept(recipe: Recipe, folder: Path) -> Path | None:
    name = recipe.project.replace("-", "_")
    return next(folder.glob(f"{name}-{recipe.version}-{recipe.build}-*.whl"), None)


def _build(recipe: Recipe, folder: Path) -> Path:
    click.echo("Building Caffe, the first time only; 2 to 4 minutes on 2 free cores", err=True)
    begin = time.monotonic()
    work, log = folder / "work", folder / "build.log"
    work.mkdir(exist_ok=True)
    log.write_text("")
    install_libraries()
    libraries = find_libraries()
    source = fetch_source(recipe, work, log=log)
    package = compile_caffe(source, work, libraries, log=log)
    made = pack_wheel(recipe, package, source / "LICENSE", work, log=log)
    # Its name appears only now that it is whole.
    wheel = made.rename(folder / made.name)
    shutil.rmtree(work)
    click.echo(f"Built {wheel} in {time.monotonic() - begin:.0f} s", err=True)
    return wheel
