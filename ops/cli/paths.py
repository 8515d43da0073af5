"""Paths that people name: whether they lead somewhere, and what is said if not."""

from __future__ import annotations

from pathlib import Path

import click

from workers.errors import Failed


def is_there(path: Path) -> bool:
    """Return whether a path leads somewhere.

    Raises:
        Failed: The folders on the way may not be looked into, or the name is too long.
    """
    try:
        return path.exists()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> Failed:
    """Return what a person is told who named a file that cannot be read."""
    return Failed(
        f"{path} cannot be read: {error.strerror}.",
        remedy="Check its permissions and its path.",
        code="unreadable",
    )


def in_a_folder(path: Path) -> Path:
    """Return a path that is to be written, if the folder that it will be in is there.

    It is not made: the name may be wrong, or its disk not mounted.

    Raises:
        BadParameter: There is no such folder.
    """
    if not (is_there(path.parent) and path.parent.is_dir()):
        raise click.BadParameter(f"There is no folder {path.parent}; make it, or check the path.")
    return path
