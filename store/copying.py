"""Copying files so that they are known to have arrived: flushed, and compared by checksum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from store.swapping import flush

_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(_CHUNK_BYTES)

Told = Callable[[int], None]
"""Called with the bytes done since the last call."""


def copy_parts(
    source: BinaryIO, target: Path, parts: Sequence[tuple[int, int]], told: Told
) -> str:
    """Copy parts of a file to the same places of a new one, and flush it.

    Args:
        source: May be appended to meanwhile.
        target: Is overwritten. What is between the parts becomes zeros. Long runs of zeros take
            no room.
        parts: Offset and bytes of each, in order; the last one ends the file.
        told: Told of what was copied.

    Returns:
        The sha256 of the new file.

    Raises:
        EOFError: The source ends before a part does.
    """
    digest = hashlib.sha256()
    with target.open("wb") as writing:
        end = 0
        for offset, size in parts:
            for zeros in _zeros(offset - end):
                digest.update(zeros)
            source.seek(offset)
            writing.seek(offset)
            for chunk in _chunks(source, size):
                digest.update(chunk)
                if chunk == _ZEROS[: len(chunk)]:
                    writing.seek(len(chunk), os.SEEK_CUR)
                else:
                    writing.write(chunk)
                told(len(chunk))
            end = offset + size
        writing.truncate(end)
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()


def checksum(path: Path, told: Told = lambda _: None) -> str:
    """Return the sha256 of what is on the disk, not of what the kernel remembers."""
    flush(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            told(len(chunk))
    return digest.hexdigest()


def same_start(one: BinaryIO, other: BinaryIO, size: int) -> bool:
    """Tell whether two files go on with the same bytes."""
    pairs = zip(_chunks(one, size), _chunks(other, size), strict=True)
    return all(first == second for first, second in pairs)


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = file.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise EOFError(f"{file.name} ended {size} bytes early")
        size -= len(chunk)
        yield chunk


def _zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, _CHUNK_BYTES):
        yield _ZEROS[: size - start]
