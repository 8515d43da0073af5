"""Directories that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import BundleError


@contextmanager
def whole_directory(target: Path, *, remedy: str) -> Iterator[Path]:
    """Give a directory to fill, and rename it to its place once that is done.

    Where another process was faster its directory stays. An error on the way leaves nothing.

    Args:
        target: Where it is to be; folders above it are made.
        remedy: What the user can do where it cannot be written.

    Raises:
        BundleError: It cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            yield made
            made.rename(target)
    except OSError as error:
        if not target.exists():
            raise BundleError(f"cannot write {target}: {error.strerror}; {remedy}") from error
