"""Cross-checking everything that the tables and files say about each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from store.codes import rows_of_words
from store.errors import StoreDamaged
from store.filing import generations
from store.layout import LABEL_ENTRY, Record, feature_checksums, number_key, unpack_record
from store.segments import SEGMENT_ROWS, SegmentMoved
from store.spec import CheckReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.filing import Key, Keys
    from store.kernels import Codes
    from store.slots import Segment
    from store.snapshot import Snapshot

_CHUNK_SLOTS = 1024


def check_records(store: Snapshot, keys: Keys) -> CheckReport:
    """Compare the tables and files of a store with one another.

    Returns:
        The number of images and a sentence for each contradiction.
    """
    problems = [
        *(p for each in generations(store) for p in _bucket_problems(store, keys.of(store, each))),
        *_image_problems(store),
        *_content_problems(store),
        *_label_problems(store),
        *_segment_problems(store),
    ]
    return CheckReport(images=store.count(), problems=tuple(problems))


def _bucket_problems(store: Snapshot, key: Key) -> Iterator[str]:
    """Compare each bucket of a generation with its line in the directory and with the records."""
    lines = store.directory_of(key.generation)
    occupied = _occupied(store, key.generation)
    for bucket in sorted(occupied - set(lines.keys.tolist())):
        yield f"bucket {bucket} is missing from the directory"
    for bucket, count, radius in zip(*(column.tolist() for column in lines), strict=True):
        _, entries = store.stored_bucket_codes(np.array([bucket], np.uint32), key.generation)
        if len(entries.rows) != count:
            yield f"bucket {bucket} holds {len(entries.rows)} images, the directory says {count}"
        yield from _filing_problems(store, key, bucket, radius, entries)
    filed, expected = int(lines.counts.sum()), _to_be_filed(store, key.generation)
    if filed != expected:
        yield f"the buckets hold {filed} images, the records are {expected}"


def _to_be_filed(store: Snapshot, generation: int) -> int:
    """Return how many images a generation should hold: while it is coming, not yet all."""
    if generation == store.number("generation"):
        return store.count()
    start, stop = store.number("refiled"), store.number("refile_until")
    names = store.txn.cursor(store.tables.images).iternext(keys=True, values=False)
    rows = (int.from_bytes(name, "big") for name in names)
    return sum(not start <= row < stop for row in rows)


def _filing_problems(
    store: Snapshot, key: Key, bucket: int, radius: int, entries: Codes
) -> Iterator[str]:
    filed = entries.words.view(np.uint8)[:, : store.spec.code_bytes]
    buckets, distances = key.buckets.file(filed)
    for i in np.flatnonzero((buckets != bucket) | (distances > radius)):
        yield f"row {entries.rows[i]} is filed in the wrong bucket {bucket}, or beyond its radius"
    for row, words in zip(entries.rows.tolist(), entries.words, strict=True):
        try:
            code = store.record(row).code
        except StoreDamaged:
            yield f"row {row} is in bucket {bucket} and has no readable record"
        else:
            if rows_of_words(np.frombuffer(code, np.uint8)[None]).tobytes() != words.tobytes():
                yield f"row {row} has another code in bucket {bucket} than in its record"


def _image_problems(store: Snapshot) -> Iterator[str]:
    """Compare each record with the content index."""
    next_row = store.number("next_row")
    entries = store.txn.stat(store.tables.content)["entries"]
    if entries != store.count():
        yield f"the content index holds {entries} images, the records are {store.count()}"
    for key, packed in store.txn.cursor(store.tables.images):
        row = int.from_bytes(key, "big")
        record = _readable(row, packed)
        if record is None:
            yield f"the record of row {row} cannot be read"
        elif store.row_of(record.image.id) != row:
            yield f"image {record.image.id} of row {row} is not in the content index"
        if row >= next_row:
            yield f"row {row} is in use, and the next row to be given out is {next_row}"


def _content_problems(store: Snapshot) -> Iterator[str]:
    """Compare each line of the content index with the record that it leads to."""
    for name, key in store.txn.cursor(store.tables.content):
        row = int.from_bytes(key, "big")
        try:
            found = store.record(row).image.id
        except StoreDamaged:
            yield f"image {bytes(name).hex()} leads to row {row}, which has no readable record"
        else:
            if found != bytes(name).hex():
                yield f"image {bytes(name).hex()} leads to row {row}, which is image {found}"


def _label_problems(store: Snapshot) -> Iterator[str]:
    """Compare the index of labels with the records, both ways."""
    indexed = {
        (bytes(label).decode(errors="replace"), int(np.frombuffer(row, LABEL_ENTRY)[0]))
        for label, row in store.txn.cursor(store.tables.labels)
    }
    told = set()
    for key, packed in store.txn.cursor(store.tables.images):
        record = _readable(int.from_bytes(key, "big"), packed)
        if record is not None:
            told |= {(label, record.image.row) for label in record.image.labels}
    for label, row in sorted(indexed - told):
        yield f"row {row} stands under the label {label!r}, which its record lacks"
    for label, row in sorted(told - indexed):
        yield f"row {row} has the label {label!r} and does not stand under it"


def _segment_problems(store: Snapshot) -> Iterator[str]:
    """Compare the feature in each slot with its checksum and with the image of its row."""
    held: set[int] = set()
    for segment in store.segments():
        rows = _rows(segment)
        if (np.diff(rows) <= 0).any():
            yield f"the slots of segment {segment.number} are not in the order of their rows"
        live = np.array([store.holds(row) for row in rows.tolist()], np.bool_)
        if segment.slots - int(live.sum()) != segment.dead:
            yield (
                f"segment {segment.number} has {segment.slots - int(live.sum())} slots without "
                f"an image, and says {segment.dead}"
            )
        held |= set(rows[live].tolist())
        yield from _feature_problems(store, segment, rows, live)
    for key in store.txn.cursor(store.tables.images).iternext(keys=True, values=False):
        row = int.from_bytes(key, "big")
        if row not in held:
            yield f"row {row} has no feature"


def _feature_problems(
    store: Snapshot, segment: Segment, rows: NDArray[np.int64], live: NDArray[np.bool_]
) -> Iterator[str]:
    if not _is_whole(store, segment):
        yield f"the file of segment {segment.number} was cut off"
        return
    view = store.mapped(segment)
    slots = np.flatnonzero(live)
    for start in range(0, len(slots), _CHUNK_SLOTS):
        some = slots[start : start + _CHUNK_SLOTS]
        heads = view.heads[some]
        sums = feature_checksums(heads, view.values[some])
        for row, head, found in zip(rows[some].tolist(), heads, sums, strict=True):
            if head["crc"] != found:
                yield f"the feature of row {row} is not what was written"
            if store.row_of_bytes(head["id"].tobytes()) != row:
                yield f"the feature of row {row} belongs to another image"


def _is_whole(store: Snapshot, segment: Segment) -> bool:
    try:
        return store.files.is_whole(segment.number, segment.version, segment.slots)
    except SegmentMoved:
        return True  # compacted since the check began, and still mapped


def _rows(segment: Segment) -> NDArray[Any]:
    places = np.arange(segment.slots) if segment.places is None else segment.places
    return segment.number * SEGMENT_ROWS + places.astype(np.int64)


def _occupied(store: Snapshot, generation: int) -> set[int]:
    names = store.txn.cursor(store.tables.buckets).iternext_nodup(keys=True, values=False)
    pairs = ((bytes(name[:4]), int.from_bytes(name[4:], "big")) for name in names)
    return {key for of, key in pairs if of == number_key(generation)}


def _readable(row: int, packed: Any) -> Record | None:
    try:
        return unpack_record(row, packed)
    except StoreDamaged:
        return None
