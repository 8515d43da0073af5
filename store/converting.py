"""Copying all images of a store of format 1 into a new one, rows and values as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.filing import add_to_buckets
from store.format1 import Damage, OldImage, OldStore
from store.layout import (
    HEAD,
    bucket_entry,
    pack_record,
    row_key,
    seal_features,
    seconds,
    write_number,
)
from store.segments import FOLDER, SEGMENT_ROWS
from store.slots import Segment
from store.swapping import flush
from store.writing import put_segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.shard import Shard
    from store.snapshot import Snapshot

BATCH_IMAGES = 2048
"""Images copied in one transaction."""

_RECORD_GROWTH = 2
"""Records and indexes take at most so many times the room that they took before."""

_SPARE_BYTES = 1 << 24

_FILLED_GAP_SLOTS = 64
"""So many slots of deleted images are written as zeros, rather than writing in two pieces."""

Progress = Callable[[int, int], None]
"""Called with how many images are done, and how many there are."""


class _Batch(NamedTuple):
    """Some images of one segment, as the new store has them.

    Attributes:
        found: As the old store has them.
        places: Their rows, less the segment's first one: shape=(N,), ascending.
        codes: shape=(N, W), dtype=uint8.
        heads: shape=(N,), dtype=HEAD.
        values: shape=(N, D), dtype=int8.
    """

    found: Sequence[OldImage]
    places: NDArray[np.int64]
    codes: NDArray[np.uint8]
    heads: NDArray[Any]
    values: NDArray[np.int8]


def needed_bytes(old: OldStore) -> int:
    """Return the disk space that a new store may take."""
    entry = bucket_entry(old.spec.code_bytes).itemsize
    slots = old.count() + old.next_row % SEGMENT_ROWS
    records = _RECORD_GROWTH * (old.record_bytes() + old.count() * entry)
    return slots * (old.spec.dims + HEAD.itemsize) + records + _SPARE_BYTES


def convert(old: OldStore, shard: Shard, progress: Progress) -> list[str]:
    """Fill a new store, batch by batch.

    Returns:
        A sentence for each image that cannot be read, and that the new store lacks.
    """
    left_out: list[str] = []
    done = 0
    for number, rows in groupby(old.rows(), lambda row: row // SEGMENT_ROWS):
        segment = Segment(number, 0, 0, 0, None)
        while some := list(islice(rows, BATCH_IMAGES)):
            found = list(_readable(old, some, left_out))
            if found:
                segment = _put(shard, segment, _batch(found), _is_last(old, number))
            done += len(some)
            progress(done, old.count())
    shard._write(lambda store: _give_out(store, old.next_row))
    flush(shard.path / FOLDER)
    return left_out


def _is_last(old: OldStore, number: int) -> bool:
    """Tell whether the next image would be put into this segment."""
    return number == old.next_row // SEGMENT_ROWS


def _readable(old: OldStore, rows: Sequence[int], left_out: list[str]) -> Iterator[OldImage]:
    for row in rows:
        try:
            yield old.image(row)
        except Damage as damage:
            left_out.append(str(damage))


def _batch(found: Sequence[OldImage]) -> _Batch:
    codes = np.frombuffer(b"".join(each.code for each in found), np.uint8)
    values = np.stack([each.values for each in found])
    wide = values.astype(np.float32)
    heads = np.zeros(len(found), HEAD)
    names = b"".join(bytes.fromhex(each.image.id) for each in found)
    heads["id"] = np.frombuffer(names, np.uint8).reshape(-1, 16)
    heads["scale"] = [each.scale for each in found]
    heads["square"] = np.vecdot(wide, wide, dtype=np.float64)
    heads["added"] = [seconds(each.image.added_at) for each in found]
    seal_features(heads, values)
    places = np.array([each.image.row % SEGMENT_ROWS for each in found], np.int64)
    return _Batch(found, places, codes.reshape(len(found), -1), heads, values)


def _put(shard: Shard, segment: Segment, batch: _Batch, last: bool) -> Segment:
    """Store a batch in one transaction; return what the segment holds then.

    A segment that is full has slots for the images that are left only. In the last one every
    row has its slot, for it is going to be appended to.
    """
    grown = _stretched(segment, batch.places) if last else _packed(segment, batch.places)

    def work(store: Snapshot) -> None:
        for slot, heads, values in _pieces(segment, batch, last):
            store.files.write(segment.number, segment.version, slot, heads, values)
        put_segment(store, grown)
        _put_records(store, batch)
        rows = segment.number * SEGMENT_ROWS + batch.places
        filing = shard._keys.current(store).file(batch.codes)
        add_to_buckets(store, filing, rows, batch.codes, newest=True)

    shard._write(work)
    return grown


def _packed(segment: Segment, places: NDArray[np.int64]) -> Segment:
    before = np.arange(segment.slots) if segment.places is None else segment.places
    after = np.concatenate([before, places])
    gapless = np.array_equal(after, np.arange(len(after)))
    return segment._replace(slots=len(after), places=None if gapless else after.astype(np.uint16))


def _stretched(segment: Segment, places: NDArray[np.int64]) -> Segment:
    slots = int(places[-1]) + 1
    dead = segment.dead + slots - segment.slots - len(places)
    return segment._replace(slots=slots, dead=dead)


def _pieces(
    segment: Segment, batch: _Batch, last: bool
) -> Iterator[tuple[int, NDArray[Any], NDArray[np.int8]]]:
    """Yield what is to be written: the first slot, heads and values."""
    if not last:
        yield segment.slots, batch.heads, batch.values
        return
    cuts = np.flatnonzero(np.diff(batch.places) > _FILLED_GAP_SLOTS) + 1
    for some in np.split(np.arange(len(batch.places)), cuts):
        slots = batch.places[some] - batch.places[some[0]]
        heads = np.zeros(slots[-1] + 1, HEAD)
        values = np.zeros((slots[-1] + 1, batch.values.shape[1]), np.int8)
        heads[slots], values[slots] = batch.heads[some], batch.values[some]
        yield int(batch.places[some[0]]), heads, values


def _put_records(store: Snapshot, batch: _Batch) -> None:
    records = [(row_key(one.image.row), pack_record(one.image, one.code)) for one in batch.found]
    content = [(bytes.fromhex(one.image.id), row_key(one.image.row)) for one in batch.found]
    store.txn.cursor(store.tables.images).putmulti(records, append=True)
    store.txn.cursor(store.tables.content).putmulti(sorted(content))


def _give_out(store: Snapshot, next_row: int) -> None:
    """Let the next image have this row; the slots of the rows before it are taken."""
    number, slots = divmod(next_row, SEGMENT_ROWS)
    segment = store.segment(number) or Segment(number, 0, 0, 0, None)
    if segment.slots < slots:
        store.files.write(
            number,
            segment.version,
            slots,
            np.empty(0, HEAD),
            np.empty((0, store.spec.dims), np.int8),
        )
        dead = segment.dead + slots - segment.slots
        put_segment(store, segment._replace(slots=slots, dead=dead))
    write_number(store.txn, store.tables, "next_row", next_row)
