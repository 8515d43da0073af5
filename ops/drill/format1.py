"""Writing stores of format 1, as the first releases did, for migrations to begin with."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import lmdb
import msgpack
import numpy as np

from store import NewImage, StoreSpec

_HEAD = np.dtype([("id", "u1", 16), ("scale", "<f4"), ("length", "<f4"), ("crc", "<u4")])
_TABLES = ("meta", "directory", "buckets", "features", "images", "content")

Stored = dict[str, bytes]
"""What a row has in each table."""


def write_old_store(
    folder: Path,
    spec: StoreSpec,
    rows: Mapping[int, NewImage],
    next_row: int,
    *,
    spoil: Callable[[int, Stored], Stored] = lambda _row, stored: stored,
) -> None:
    """Write a store of format 1.

    Args:
        folder: Must not be there.
        spec: Of the store.
        rows: The image of each row.
        next_row: The row of the next image.
        spoil: Called with a row and what it has, and returns what is written.
    """
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), max_dbs=8, map_size=1 << 24) as env, env.begin(write=True) as txn:
        tables = {name: env.open_db(name.encode(), txn) for name in _TABLES}
        txn.put(b"format", b"1", db=tables["meta"])
        plain = (spec.bundle_id, spec.bits, spec.dims, spec.metric)
        txn.put(b"spec", msgpack.packb(plain), db=tables["meta"])
        txn.put(b"next_row", next_row.to_bytes(8, "big"), db=tables["meta"])
        for row, image in rows.items():
            key = row.to_bytes(8, "big")
            for name, value in spoil(row, old_image(image)).items():
                txn.put(key, value, db=tables[name])
            txn.put(bytes.fromhex(image.id), key, db=tables["content"])


def old_image(image: NewImage) -> Stored:
    """Return what stood in `features` and `images`, packed."""
    return {"features": _feature(image), "images": _record(image)}


def old_sources(source: str) -> tuple[str, str]:
    """Return the sources that an image is written with, for it was met twice."""
    return source, f"{source}#again"


def _feature(image: NewImage) -> bytes:
    head = np.zeros(1, _HEAD)
    scale = np.float32(np.abs(image.feature).max() / np.float32(127))
    values = np.rint(image.feature / scale).astype(np.int8)
    head["id"], head["scale"] = np.frombuffer(bytes.fromhex(image.id), np.uint8), scale
    head["crc"] = zlib.crc32(values.tobytes(), zlib.crc32(head.tobytes()))
    return head.tobytes() + values.tobytes()


def _record(image: NewImage) -> bytes:
    fields = (
        bytes.fromhex(image.id),
        image.code.tobytes(),
        image.origin,
        image.added_at,
        image.width_px,
        image.height_px,
        image.format,
        image.size_bytes,
        old_sources(image.source),
    )
    packed: bytes = msgpack.packb(fields, unicode_errors="surrogateescape")
    return zlib.crc32(packed).to_bytes(4, "little") + packed
