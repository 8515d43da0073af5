"""The files of a collection that are not in a database: thumbnails, uploads and kept originals."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workers.errors import Rejected, TooLarge, Unavailable

_CHUNK_BYTES = 1 << 20
_NO_LINKS = (
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
)  # file systems without them


@dataclass(frozen=True)
class Files:
    """Names and writes the files below the data directory; safe to send to other processes."""

    root: Path

    def thumbnail(self, image_id: str) -> Path:
        """Return where the thumbnail of an image is."""
        return self.root / "thumbnails" / image_id[:2] / f"{image_id}.jpg"

    def query_thumbnail(self, ticket: str) -> Path:
        """Return where the thumbnail of a search's query is, as long as its result is kept."""
        return self.root / "queries" / f"{ticket}.jpg"

    def original(self, image_id: str) -> Path:
        """Return where an uploaded image's own bytes are kept."""
        return self.root / "originals" / image_id[:2] / image_id

    def spooled(self, name: str) -> Path:
        """Return where a file that waits to be worked on is."""
        return self.root / "spool" / name

    def spool(self, stream: BinaryIO, *, max_bytes: int, label: str) -> str:
        """Keep an uploaded file until a worker has dealt with it.

        Args:
            stream: Read to its end, or to just over the limit.
            max_bytes: Largest size that is taken.
            label: What to call it in an error.

        Returns:
            Its name in the spool.

        Raises:
            TooLarge: It has more than ``max_bytes``.
            Unavailable: It cannot be written.
        """
        name = secrets.token_hex(16)
        with writing(self.spooled(name)) as target:
            size = 0
            while chunk := stream.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > max_bytes:
                    raise too_many_bytes(label, max_bytes)
                target.write(chunk)
        return name

    def drop(self, path: Path) -> None:
        """Delete a file if it is there."""
        path.unlink(missing_ok=True)

    def keep_original(self, spooled: Path, image_id: str) -> None:
        """Keep an upload's bytes under the image's id.

        The spooled file stays, as a second name of the same bytes, until its owner drops it.

        Raises:
            Unavailable: It cannot be written, or is not in the spool any more.
        """
        target = self.original(image_id)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(spooled)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise _cannot_write(target, error) from error
            with spooled.open("rb") as source, writing(target) as copy:
                shutil.copyfileobj(source, copy)

    def sweep_spool(self, *, needed: Callable[[], set[str]], older_than_s: float) -> int:
        """Delete spooled files that nobody waits for; return how many.

        Args:
            needed: Asked for the names still needed, only if there are old files at all.
            older_than_s: Younger files are left alone: their owner may be about to be recorded.
        """
        oldest = time.time() - older_than_s
        spool = self.spooled("")
        old = (
            [path for path in spool.glob("*") if _modified(path) < oldest]
            if spool.exists()
            else []
        )
        keep = needed() if old else set()
        doomed = [path for path in old if path.name not in keep]
        for path in doomed:
            self.drop(path)
        return len(doomed)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name whole, or not at all.

    Raises:
        Unavailable: The disk is full, or the folder cannot be written to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as target:
            yield target
        part.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        # What keeps it from being deleted has kept it from being made.
        with suppress(OSError):
            part.unlink()


def _cannot_write(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"{path} cannot be written: {error.strerror or error}.",
        remedy="Free some space or give the worker access to the data directory.",
        code="cannot_write",
    )


def empty_file(label: str) -> Rejected:
    """Return the error for a file of zero bytes."""
    return Rejected(
        f"{label} is empty (0 bytes).", remedy="Save or download it again.", code="empty"
    )


def too_many_bytes(label: str, max_bytes: int) -> TooLarge:
    """Return the error for a file that is over the size limit."""
    return TooLarge(
        f"{label} has more than {max_bytes:,} bytes.",
        remedy="Shrink it, or raise LOOKALIKE_MAX_IMAGE_BYTES.",
        code="too_many_bytes",
    )


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
