"""Cross-checking everything that the tables say about each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import StoreDamaged
from store.layout import Record, feature_checksums, feature_entry, read_next_row, unpack_record
from store.spec import CheckReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from store.buckets import Buckets
    from store.snapshot import Snapshot


def check_records(store: Snapshot, buckets: Buckets) -> CheckReport:
    """Compare the tables of a store with one another.

    Returns:
        The number of images and a sentence for each contradiction.
    """
    problems = [
        *_bucket_problems(store, buckets),
        *_image_problems(store),
        *_feature_problems(store),
        *_content_problems(store),
    ]
    return CheckReport(images=store.count(), problems=tuple(problems))


def _bucket_problems(store: Snapshot, buckets: Buckets) -> Iterator[str]:
    """Compare each bucket with its line in the directory and with the records."""
    directory = {int(line["key"]): line for line in store.directory()}
    occupied = _occupied(store)
    for key in sorted(occupied - directory.keys()):
        yield f"bucket {key} is missing from the directory"
    for key, line in directory.items():
        _, entries = store.bucket_codes(np.array([key], np.uint32))
        if len(entries) != line["count"]:
            yield f"bucket {key} holds {len(entries)} images, the directory says {line['count']}"
        keys, distances = buckets.file(entries["code"])
        for i in np.flatnonzero((keys != key) | (distances > line["radius"])):
            row = entries["row"][i]
            yield f"row {row} is filed in the wrong bucket {key}, or beyond its radius"
        yield from _entry_problems(store, key, entries)


def _entry_problems(store: Snapshot, key: int, entries: NDArray[Any]) -> Iterator[str]:
    for entry in entries:
        row = int(entry["row"])
        try:
            code = store.record(row).code
        except StoreDamaged:
            yield f"row {row} is in bucket {key} and has no readable record"
        else:
            if code != entry["code"].tobytes():
                yield f"row {row} has another code in bucket {key} than in its record"


def _image_problems(store: Snapshot) -> Iterator[str]:
    """Compare each record with the content index, and the counts of all tables."""
    next_row, tables = read_next_row(store.txn, store.tables), store.tables
    for name in ("buckets", "features", "content"):
        entries = store.txn.stat(getattr(tables, name))["entries"]
        if entries != store.count():
            yield f"the table {name} holds {entries} images, the records are {store.count()}"
    for key, packed in store.txn.cursor(tables.images):
        row = int.from_bytes(key, "big")
        record = _readable(row, packed)
        if record is None:
            yield f"the record of row {row} cannot be read"
        elif store.row_of(record.image.id) != row:
            yield f"image {record.image.id} of row {row} is not in the content index"
        if row >= next_row:
            yield f"row {row} is in use, and the next row to be given out is {next_row}"


def _feature_problems(store: Snapshot) -> Iterator[str]:
    """Compare each feature with its checksum and with the content index."""
    entry = feature_entry(store.spec.dims)
    for key, packed in store.txn.cursor(store.tables.features):
        row = int.from_bytes(key, "big")
        if len(packed) != entry.itemsize:
            yield f"the feature of row {row} has {len(packed)} bytes, not {entry.itemsize}"
            continue
        feature = np.frombuffer(packed, entry)
        if feature_checksums(feature) != feature["crc"].tolist():
            yield f"the feature of row {row} is not what was written"
        if store.row_of(feature["id"].tobytes().hex()) != row:
            yield f"the feature of row {row} belongs to another image"


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


def _occupied(store: Snapshot) -> set[int]:
    names = store.txn.cursor(store.tables.buckets).iternext_nodup(keys=True, values=False)
    return {int.from_bytes(name, "big") for name in names}


def _readable(row: int, packed: Any) -> Record | None:
    try:
        return unpack_record(row, packed)
    except StoreDamaged:
        return None
