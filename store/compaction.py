"""Compaction: giving back the disk space of deleted features, while searches and writes go on.

A segment whose rows are all given out, and of which a good share is dead, is written anew with
its live slots only, as a file of the next version. What takes long, copying and flushing, is done
before the write lock is taken, on a draft whose name no state of the store refers to. Under the
lock the draft gets its final name and the table its new entry, and the old file goes once that is
committed. Killed at any line, it leaves the old state or the new one, and a file too many, which
the next opening deletes. Searches that began before keep the old file mapped until they end.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.layout import number_key, row_key
from store.segments import SEGMENT_ROWS
from store.slots import Segment
from store.writing import put_segment

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from store.segments import Segments, SegmentView
    from store.snapshot import Snapshot

DEAD_SHARE = 0.25
"""A segment of which less is dead is not worth copying."""

_CHUNK_SLOTS = 512

_DRAFT = re.compile(r"\d{8}-\d{8}\.draft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What compacting one segment has done.

    Attributes:
        segment: Its number.
        slots: Slots that it has left; 0 when its file was deleted.
        freed_bytes: Disk space given back.
    """

    segment: int
    slots: int
    freed_bytes: int


class Source(NamedTuple):
    """A segment as it was when copying began.

    Attributes:
        segment: What counted in it.
        slots: Slots of images that lived, shape=(L,), ascending.
        rows: Their rows, less the segment's first: shape=(L,), dtype=uint16.
        view: Its file; None where nothing lived.
    """

    segment: Segment
    slots: NDArray[np.int64]
    rows: NDArray[np.uint16]
    view: SegmentView | None


def worth_compacting(store: Snapshot, dead_share: float) -> list[int]:
    """Return the segments of which at least this share is dead, the deadest first.

    The last one never is among them: rows are still added to it.
    """
    sealed = store.number("next_row") // SEGMENT_ROWS
    found = [
        (-segment.dead / segment.slots, segment.number)
        for segment in store.segments()
        if segment.number < sealed and 0 < segment.dead >= dead_share * segment.slots
    ]
    return [number for _, number in sorted(found)]


def source_of(store: Snapshot, number: int) -> Source | None:
    """Look at a segment that is to be copied; None where it is gone or nothing in it is dead.

    Raises:
        SegmentMoved: It was compacted meanwhile.
    """
    segment = store.segment(number)
    if segment is None or not segment.dead:
        return None
    slots = _live_slots(store, segment)
    rows = slots.astype(np.uint16) if segment.places is None else segment.places[slots]
    return Source(segment, slots, rows, store.mapped(segment) if len(slots) else None)


@contextmanager
def draft_of(files: Segments, source: Source) -> Iterator[int | None]:
    """Make the draft of the next version: its descriptor, None where another process is at it.

    What is left of it at the end is deleted.
    """
    path = _draft(files, source.segment)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _locked(descriptor) or not _is(path, descriptor):
            yield None
            return
        try:
            os.ftruncate(descriptor, 0)
            yield descriptor
        finally:
            if _is(path, descriptor):
                path.unlink()
    finally:
        os.close(descriptor)


def copy_live(files: Segments, source: Source, descriptor: int) -> None:
    """Fill a draft, and flush it to the disk."""
    if source.view is None:
        return
    for start in range(0, len(source.slots), _CHUNK_SLOTS):
        some = source.slots[start : start + _CHUNK_SLOTS]
        source.view.expect(some)
        files.fill(descriptor, start, source.view.heads[some], source.view.values[some])
    os.fdatasync(descriptor)


def adopt(store: Snapshot, source: Source, descriptor: int) -> bool:
    """Make a draft the segment; False where the segment is no longer what was copied.

    Images that were deleted since it was copied are dead slots of the new file.

    Args:
        store: A snapshot whose transaction may write.
        source: What was copied.
        descriptor: Of the draft, filled and flushed.
    """
    old = source.segment
    now = store.segment(old.number)
    if now is None or now.version != old.version:
        return False
    live = len(_live_slots(store, now))
    if not live:
        store.txn.delete(number_key(old.number), db=store.tables.segments)
        return True
    if not _name(store.files, old, descriptor):
        return False
    slots = len(source.rows)
    put_segment(store, Segment(old.number, old.version + 1, slots, slots - live, source.rows))
    return True


def clear_drafts(files: Segments) -> None:
    """Delete the drafts of processes that died."""
    for path in files.folder.iterdir():
        if _DRAFT.fullmatch(path.name):
            with suppress(FileNotFoundError):
                _clear(path)


def _clear(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        if _locked(descriptor) and _is(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _live_slots(store: Snapshot, segment: Segment) -> NDArray[np.int64]:
    """Return the slots of a sealed segment that hold an image, shape=(L,), ascending."""
    first = segment.number * SEGMENT_ROWS
    live = _rows_between(store, first, first + SEGMENT_ROWS) - first
    if segment.places is None:
        return live
    return np.flatnonzero(np.isin(segment.places, live))


def _rows_between(store: Snapshot, first: int, end: int) -> NDArray[np.int64]:
    """Return the rows from `first` up to `end` that have a record, shape=(N,), ascending."""
    found = bytearray()
    cursor, last = store.txn.cursor(store.tables.images), row_key(end)
    if cursor.set_range(row_key(first)):
        for key in cursor.iternext(keys=True, values=False):
            if bytes(key) >= last:
                break
            found += key
    return np.frombuffer(found, ">u8").astype(np.int64)


def _draft(files: Segments, segment: Segment) -> Path:
    return files.path(segment.number, segment.version + 1).with_suffix(".draft")


def _name(files: Segments, old: Segment, descriptor: int) -> bool:
    """Give a draft its final name.

    A transaction that meets a full map is repeated, and then the draft has that name already, or
    another process that opened the store has deleted it as a file too many.
    """
    final = files.path(old.number, old.version + 1)
    if _is(_draft(files, old), descriptor):
        _draft(files, old).rename(final)
        files.flush_names()
    return _is(final, descriptor)


def _locked(descriptor: int) -> bool:
    """Lock a draft for as long as this process has it open, unless another has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, descriptor: int) -> bool:
    """Tell whether a path still leads to an open file."""
    try:
        there: Any = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
