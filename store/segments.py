"""The value store: features in flat files, one slot of fixed size for each image.

A feature is looked up thousands of times in a search, and written once. So features are not in
LMDB but in files that are only appended to, as in WiscKey (Lu et al., FAST 2016), and mapped
into memory: reading 4,000 of them is one `take` from an array. LMDB says which slots of which
files count; slots are flushed to the disk before the transaction that counts them is committed,
and what a cut-off transaction left behind is overwritten by the next one.

A segment is a file of up to `SEGMENT_ROWS` slots: first the heads of all slots, for which there
is always room, then the values. Row r is in segment r // SEGMENT_ROWS, at slot r % SEGMENT_ROWS
until the segment is compacted. A compacted segment is another file, of the next version.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import StoreDamaged
from store.layout import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SEGMENT_ROWS = 1 << 16

FOLDER = "segments"

_VALUES_AT = SEGMENT_ROWS * HEAD.itemsize
_GROWTH_ROWS = 1 << 10
"""A file grows by so many empty slots at a time; readers map it anew each time."""

_NAME = re.compile(r"(\d{8})-(\d{8})\.segment")


class SegmentMoved(Exception):
    """The file is gone: the segment was compacted after the reader's transaction had begun."""


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment, mapped.

    Attributes:
        heads: shape=(SEGMENT_ROWS,), dtype=HEAD.
        values: shape=(S, D), dtype=int8; slots beyond those that count hold anything.
        map: What both lie in.
    """

    heads: NDArray[Any]
    values: NDArray[np.int8]
    map: mmap.mmap

    def expect(self, slots: NDArray[np.int64]) -> None:
        """Have the kernel begin to read features that will be needed, all at once.

        Heads are small and lie together: all that are in between come in one read.
        """
        size = self.values.shape[1]
        heads = np.array([slots[0] * HEAD.itemsize]), int(slots[-1] - slots[0] + 1) * HEAD.itemsize
        for starts, length in (heads, (_VALUES_AT + slots * size, size)):
            for first, last in _page_ranges(starts, length):
                self.map.madvise(mmap.MADV_WILLNEED, first, last - first)


class Segments:
    """The files of one shard, shared by the threads of a process.

    Args:
        folder: Where the files are.
        dims: D, bytes of the values of a slot.
    """

    def __init__(self, folder: Path, dims: int) -> None:
        self.folder = folder
        self._dims = dims
        self._views: dict[tuple[int, int], SegmentView] = {}
        self._keeping = 0
        self._lock = threading.Lock()

    def path(self, segment: int, version: int) -> Path:
        """Return the file of a segment."""
        return self.folder / f"{segment:08}-{version:08}.segment"

    def view(self, segment: int, version: int, slots: int) -> SegmentView:
        """Map a segment that has so many slots.

        Raises:
            SegmentMoved: There is no such file.
            StoreDamaged: The file is shorter.
        """
        view = self._views.get((segment, version))
        if view is None or len(view.values) < slots:
            with self._lock:
                view = self._map(self.path(segment, version), slots)
                self._forget_removed()
                self._views[segment, version] = view
        return view

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is mapped inside, even if it is compacted meanwhile."""
        with self._lock:
            self._keeping += 1
        try:
            yield
        finally:
            with self._lock:
                self._keeping -= 1
                self._forget_removed()

    def write(
        self, segment: int, version: int, slot: int, heads: NDArray[Any], values: NDArray[np.int8]
    ) -> None:
        """Write features into slots from `slot` on, and flush them to the disk.

        Args:
            segment: Its number.
            version: Of its file.
            slot: Of the first feature.
            heads: shape=(N,), dtype=HEAD.
            values: shape=(N, D), dtype=int8.
        """
        with _opened(self.path(segment, version), os.O_RDWR | os.O_CREAT) as descriptor:
            self.fill(descriptor, slot, heads, values)
            os.fdatasync(descriptor)
        # After a write that failed the file is there, and its name perhaps not on the disk.
        if slot == 0:
            self.flush_names()

    def fill(
        self, descriptor: int, slot: int, heads: NDArray[Any], values: NDArray[np.int8]
    ) -> None:
        """Write features into slots of an open file; the caller flushes it."""
        self._make_room(descriptor, slot + len(heads))
        _write(descriptor, heads, slot * HEAD.itemsize)
        _write(descriptor, values, _VALUES_AT + slot * self._dims)

    def flush_names(self) -> None:
        """Have the disk keep the names of new files, and that of their folder."""
        for folder in (self.folder, self.folder.parent):
            with _opened(folder, os.O_RDONLY) as descriptor:
                os.fsync(descriptor)

    def parts(self, slots: int) -> list[tuple[int, int]]:
        """Return where the heads and the values of slots are in a file: offset and bytes."""
        return [(0, slots * HEAD.itemsize), (_VALUES_AT, slots * self._dims)]

    def insist_on(self, segment: int, version: int, slots: int) -> None:
        """Compare the length of a file with what it has to hold.

        Raises:
            StoreDamaged: It is missing or too short.
        """
        needed, length = self._bytes(slots), 0
        with suppress(SegmentMoved):
            length = self._length(segment, version)
        if length < needed:
            path = self.path(segment, version)
            raise StoreDamaged(
                f"{path} has {length} bytes of at least {needed}: it was cut off; restore a backup"
            )

    def is_whole(self, segment: int, version: int, slots: int) -> bool:
        """Tell whether a file is as long as it has to be; its map does not notice.

        Raises:
            SegmentMoved: There is no such file.
        """
        return self._length(segment, version) >= self._bytes(slots)

    def remove_others(self, current: set[tuple[int, int]]) -> None:
        """Delete the files that no committed state needs: left by compaction, or cut off.

        Only a holder of the write lock may do so; searches that began earlier keep what they
        have mapped.
        """
        for name in self._numbers() - current:
            self.path(*name).unlink(missing_ok=True)
        with self._lock:
            self._views = {name: view for name, view in self._views.items() if name in current}

    def remove(self, segment: int, version: int) -> None:
        """Delete a file that the committed state no longer needs."""
        self.path(segment, version).unlink(missing_ok=True)
        with self._lock:
            self._forget_removed()

    def file_bytes(self) -> int:
        """Return the disk space that the files take."""
        return sum(self.bytes_of(*name) for name in self._numbers())

    def bytes_of(self, segment: int, version: int) -> int:
        """Return the disk space that a file takes; none where it is not there."""
        try:
            return self.path(segment, version).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Forget the maps; each is unmapped when the last array of it is gone."""
        with self._lock:
            self._views = {}

    def _forget_removed(self) -> None:
        """Let go of files that some process removed: the disk has them while they are mapped."""
        if self._keeping:
            return
        self._views = {name: v for name, v in self._views.items() if self.path(*name).exists()}

    def _numbers(self) -> set[tuple[int, int]]:
        found = (_NAME.fullmatch(entry.name) for entry in self.folder.iterdir())
        return {(int(name[1]), int(name[2])) for name in found if name}

    def _length(self, segment: int, version: int) -> int:
        try:
            return self.path(segment, version).stat().st_size
        except FileNotFoundError as error:
            raise SegmentMoved from error

    def _bytes(self, slots: int) -> int:
        return _VALUES_AT + slots * self._dims

    def _make_room(self, descriptor: int, slots: int) -> None:
        whole = -(-slots // _GROWTH_ROWS) * _GROWTH_ROWS
        if os.fstat(descriptor).st_size < self._bytes(whole):
            os.ftruncate(descriptor, self._bytes(whole))

    def _map(self, path: Path, slots: int) -> SegmentView:
        try:
            with _opened(path, os.O_RDONLY) as descriptor:
                length = os.fstat(descriptor).st_size
                if length < self._bytes(slots):
                    raise StoreDamaged(f"{path} was cut off; restore a backup")
                mapped = mmap.mmap(descriptor, length, prot=mmap.PROT_READ)
        except FileNotFoundError as error:
            raise SegmentMoved from error
        # Searches touch scattered slots: reading ahead would push better pages out of memory.
        mapped.madvise(mmap.MADV_RANDOM)
        count = (length - _VALUES_AT) // self._dims
        values = np.frombuffer(mapped, np.int8, count * self._dims, _VALUES_AT)
        heads = np.frombuffer(mapped, HEAD, SEGMENT_ROWS)
        return SegmentView(heads, values.reshape(count, self._dims), mapped)


def _page_ranges(starts: NDArray[np.int64], length: int) -> Iterator[tuple[int, int]]:
    """Yield the pages that pieces of a file lie on, as ranges of bytes, each once.

    Args:
        starts: Where the pieces begin, shape=(N,), ascending.
        length: Bytes of each.
    """
    first = starts // mmap.PAGESIZE * mmap.PAGESIZE
    last = -(-(starts + length) // mmap.PAGESIZE) * mmap.PAGESIZE
    fresh = np.ones(len(first), np.bool_)
    fresh[1:] = (first[1:] >= last[:-1]) | (last[1:] > last[:-1])
    yield from zip(first[fresh].tolist(), last[fresh].tolist(), strict=True)


def in_memory(view: SegmentView, path: Path, slots: NDArray[Any]) -> bool:
    """Tell whether the values of a few slots can be read without waiting for the disk."""
    size = view.values.shape[1]
    buffer = bytearray(1)
    try:
        with _opened(path, os.O_RDONLY) as descriptor:
            for slot in slots.tolist():
                os.preadv(descriptor, [buffer], _VALUES_AT + slot * size, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # a file system that cannot tell, or a file that was compacted meanwhile
        return True
    return True


def _write(descriptor: int, array: NDArray[Any], offset: int) -> None:
    rest = memoryview(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
