"""``make caffe``: pycaffe in the running environment, built or out of the cache."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import click

from ops.caffe.commands import BuildError, run
from ops.caffe.kept import ensure_wheel
from ops.caffe.recipe import CAFFE, Recipe, cache_folder
from ops.errors import OpsError

_ROOT = Path(__file__).parents[2]
_PIP = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]


def main() -> int:
    """Install pycaffe and return the exit code."""
    try:
        return _main()
    except OpsError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("Interrupted; the next `make caffe` goes on from here", err=True)
        return 130


def _main() -> int:
    if sys.platform != "linux":
        raise BuildError("Caffe is built on Linux only; use the engine onnx, which is the default")
    folder = cache_folder(CAFFE)
    if not (is_installed(CAFFE) and _works()):
        install(ensure_wheel(CAFFE, folder))
    click.echo(f"Caffe 1.0 is installed in {sys.prefix} (kept in {folder})", err=True)
    return 0


def is_installed(recipe: Recipe) -> bool:
    """Tell whether this very build is in the running environment."""
    try:
        found = distribution(recipe.project)
    except PackageNotFoundError:
        return False
    number = f"Build: {recipe.build}"
    return found.version == recipe.version and number in (found.read_text("WHEEL") or "")


def install(wheel: Path) -> None:
    """Install a wheel of pycaffe with the packages it imports, and see whether it runs.

    Raises:
        BuildError: pip failed, or what it installed does not run.
    """
    again = f"Run `make caffe` again; if it fails again, remove {wheel.parent} first."
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "pip.log")
        steps: tuple[list[str | Path], ...] = (
            ["-c", _ROOT / "constraints.txt", "--no-build-isolation", "-e", f"{_ROOT}[caffe]"],
            # An older build has the same version, and pip would leave it.
            ["--no-deps", "--force-reinstall", wheel],
        )
        for what in steps:
            run([*_PIP, *what], log=log, doing="Installing Caffe", remedy=again)
    if not _works():
        raise BuildError(f"Caffe was installed and does not run. {again}")


def _works() -> bool:
    # In a child, because a library that is missing or unfit may end the process.
    command = [sys.executable, "-c", "import caffe; caffe.Net"]
    return not subprocess.run(command, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
