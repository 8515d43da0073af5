"""Writing all images of a collection into one file.

Each shard is seen as it was at one moment, and memory does not grow with it. The file appears
under its name when it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from store.environment import translated
from store.segments import SEGMENT_ROWS
from store.swapping import flush
from store.transfer import Chunk, Header, Progress, chunk_images, format_of
from store.values import restore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.layout import Record
    from store.segments import SegmentView
    from store.shard import Shard
    from store.slots import Segment
    from store.snapshot import Snapshot

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        bundle: Bundle that the collection was built with.
        images: Images in it.
        bytes: Its size.
    """

    path: Path
    bundle: str
    images: int
    bytes: int


def export(
    shards: Sequence[Shard],
    path: Path | str,
    *,
    stored: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> Exported:
    """Write a file; one that is there is replaced.

    Args:
        shards: Of one collection, open.
        path: Ends with .npz or .parquet.
        stored: Whether to write the bytes and scale of a feature, a quarter of its floats.
        progress: Told of each chunk.

    Raises:
        TransferError: The name has another ending, or pyarrow is not installed.
        StoreDamaged: A record cannot be read.
        StoreFull: The disk has no room.
    """
    target = Path(path)
    module = format_of(target)
    part = target.with_name(f".{target.stem}.part{target.suffix}")

    def work(opened: Sequence[_Opened]) -> int:
        count = sum(one.store.count() for one in opened)
        header = Header(shards[0].spec, stored, count)
        done = 0
        with module.writing(part, header) as writer:
            for chunk in (chunk for one in opened for chunk in one.chunks(stored=stored)):
                writer.write(chunk)
                done += len(chunk.images)
                progress(done, count)
        return count

    with translated(target):
        try:
            images = _with_all(shards, work)
            flush(part)
            part.replace(target)
            flush(target.parent)
        finally:
            part.unlink(missing_ok=True)
        size = target.stat().st_size
    return Exported(path=target, bundle=shards[0].spec.bundle_id, images=images, bytes=size)


class _Opened:
    """A shard at one moment, with all files mapped: compaction cannot take them away any more."""

    def __init__(self, store: Snapshot) -> None:
        self.store = store
        segments = list(store.segments())
        self._mapped = {each.number: (each, store.mapped(each)) for each in segments}

    def chunks(self, *, stored: bool) -> Iterator[Chunk]:
        """Yield all images, oldest first."""
        records = self.store.records_from(0)
        for number, some in groupby(records, lambda record: record.image.row // SEGMENT_ROWS):
            while found := list(islice(some, chunk_images(self.store.spec.dims))):
                yield self._chunk(found, *self._mapped[number], stored=stored)

    def _chunk(
        self, records: Sequence[Record], segment: Segment, view: SegmentView, *, stored: bool
    ) -> Chunk:
        slots = segment.slots_of(np.array([record.image.row for record in records]))
        scales: NDArray[Any] = view.heads["scale"][slots]
        values: NDArray[Any] = view.values[slots]
        codes = np.frombuffer(b"".join(record.code for record in records), np.uint8)
        return Chunk(
            [record.image for record in records],
            codes.reshape(len(records), -1),
            values if stored else restore(values, scales),
            scales if stored else None,
        )


def _with_all(
    shards: Sequence[Shard], work: Callable[[Sequence[_Opened]], T], opened: Sequence[_Opened] = ()
) -> T:
    """Call `work` inside a read transaction of every shard."""
    if not shards:
        return work(opened)
    return shards[0]._read(lambda store: _with_all(shards[1:], work, (*opened, _Opened(store))))
