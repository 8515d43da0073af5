"""Writing stores of format 1, which the drill of migration begins with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import lmdb
import msgpack
import numpy as np

from ops.drill.world import World
from store import NewImage

_HEAD = np.dtype([("id", "u1", 16), ("scale", "<f4"), ("length", "<f4"), ("crc", "<u4")])
_TABLES = ("meta", "directory", "buckets", "features", "images", "content")


def write_old_store(folder: Path, world: World, rows: Mapping[int, int], next_row: int) -> None:
    """Write a store as the first releases did.

    Args:
        folder: Must not be there.
        world: Where the images are from.
        rows: The row of each image, by its number.
        next_row: The row of the next image.
    """
    folder.mkdir(parents=True)
    spec = world.spec
    with lmdb.open(str(folder), max_dbs=8, map_size=1 << 24) as env, env.begin(write=True) as txn:
        tables = {name: env.open_db(name.encode(), txn) for name in _TABLES}
        txn.put(b"format", b"1", db=tables["meta"])
        plain = (spec.bundle_id, spec.bits, spec.dims, spec.metric)
        txn.put(b"spec", msgpack.packb(plain), db=tables["meta"])
        txn.put(b"next_row", next_row.to_bytes(8, "big"), db=tables["meta"])
        for number, row in rows.items():
            name, image = row.to_bytes(8, "big"), world.image(number, 0)
            txn.put(name, _feature(image), db=tables["features"])
            txn.put(name, _record(image), db=tables["images"])
            txn.put(bytes.fromhex(image.id), name, db=tables["content"])


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
        (image.source,),
    )
    packed: bytes = msgpack.packb(fields)
    return zlib.crc32(packed).to_bytes(4, "little") + packed
