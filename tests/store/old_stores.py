"""Stores of format 1: those that were written by it, and small ones with rows of any number."""

import json
import shutil
import zlib
from pathlib import Path

import lmdb
import msgpack
import numpy as np
from store_world import DIMS, make_image

FIXTURES = Path(__file__).parent / "fixtures"
ANSWERS = json.loads((FIXTURES / "format-1-answers.json").read_text())
"""What format 1 answered on its fixtures: ids begin with, distances, differing bits."""

HEAD = np.dtype([("id", "u1", 16), ("scale", "<f4"), ("length", "<f4"), ("crc", "<u4")])
TABLES = ("meta", "directory", "buckets", "features", "images", "content")


def old_fixture(folder, bits):
    """Copy a fixture to where a shard is."""
    shutil.copytree(FIXTURES / f"format-1-{bits}-bits", folder)
    return folder


def write_old_store(folder, rows, next_row, *, bits=20, spoil=None):
    """Write a store of format 1: the image of each row, by number.

    `spoil(tables, row)` may change the bytes of a row's feature and record.
    """
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), max_dbs=8, map_size=1 << 24) as env, env.begin(write=True) as txn:
        tables = {name: env.open_db(name.encode(), txn, dupsort=False) for name in TABLES}
        txn.put(b"format", b"1", db=tables["meta"])
        spec = ("tiny@0123456789ab", bits, DIMS, "cosine")
        txn.put(b"spec", msgpack.packb(spec), db=tables["meta"])
        txn.put(b"next_row", next_row.to_bytes(8, "big"), db=tables["meta"])
        for row, number in rows.items():
            stored = old_image(make_image(number, bits))
            for name, value in (spoil(row, stored) if spoil else stored).items():
                txn.put(row.to_bytes(8, "big"), value, db=tables[name])
            name = bytes.fromhex(make_image(number, bits).id)
            txn.put(name, row.to_bytes(8, "big"), db=tables["content"])
    return folder


def old_image(image):
    """What stood in `features` and `images`, packed."""
    head = np.zeros(1, HEAD)
    scale = np.float32(np.abs(image.feature).max() / np.float32(127))
    values = np.rint(image.feature / scale).astype(np.int8)
    head["id"], head["scale"] = np.frombuffer(bytes.fromhex(image.id), np.uint8), scale
    head["crc"] = zlib.crc32(values.tobytes(), zlib.crc32(head.tobytes()))
    fields = (
        bytes.fromhex(image.id),
        image.code.tobytes(),
        image.origin,
        image.added_at,
        image.width_px,
        image.height_px,
        image.format,
        image.size_bytes,
        (image.source, f"{image.source}#again"),
    )
    record = msgpack.packb(fields, unicode_errors="surrogateescape")
    return {
        "features": head.tobytes() + values.tobytes(),
        "images": zlib.crc32(record).to_bytes(4, "little") + record,
    }
