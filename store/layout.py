"""The format on disk, version 1. Nothing outside this file knows how anything is encoded.

One LMDB environment with five named tables:

| table | key | value |
|---|---|---|
| `meta` | name | format version, spec, centres, next row number |
| `directory` | the byte "d" | one packed entry per occupied bucket: key, images, radius |
| `buckets` | bucket key | one packed entry per image: row, code |
| `features` | row | id, scale, length, checksum, D signed bytes |
| `images` | row | checksum; record: id, code, origin, time, size, format, sources |
| `content` | id, 16 bytes | row |

`directory` and `buckets` hold many values of one size under a key (DUPSORT, DUPFIXED), which
LMDB packs without headers and hands out a page at a time. Keys and rows are big-endian, so
that byte order is number order and rows append at the end of their table.

LMDB has no checksums, so records and features carry a CRC-32. That of a record is compared at
every reading, that of a feature by the check alone: a search reads thousands of them.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import lmdb
import msgpack
import numpy as np

from store.errors import NotAStore, StoreDamaged, StoreVersionError
from store.spec import Image, NewImage, StoreSpec

if TYPE_CHECKING:
    from lmdb import _Database as Table
    from numpy.typing import NDArray

Txn: TypeAlias = "lmdb.Transaction[Any]"

FORMAT = 1

DIRECTORY_KEY = b"d"
DIRECTORY_ENTRY = np.dtype([("key", ">u4"), ("count", "<u4"), ("radius", "<u4")])
FEATURE_HEADER = [("id", "u1", 16), ("scale", "<f4"), ("length", "<f4"), ("crc", "<u4")]


@lru_cache
def bucket_entry(code_bytes: int) -> np.dtype[Any]:
    """Return the type of one image's entry in a bucket."""
    return np.dtype([("row", ">u8"), ("code", "u1", (code_bytes,))])


@lru_cache
def feature_entry(dims: int) -> np.dtype[Any]:
    """Return the type of a stored feature."""
    return np.dtype([*FEATURE_HEADER, ("values", "i1", (dims,))])


def seal_features(features: NDArray[Any]) -> None:
    """Fill in the checksums of features, shape=(N,), dtype=feature_entry(D)."""
    features["crc"] = feature_checksums(features)


def feature_checksums(features: NDArray[Any]) -> list[int]:
    """Return the checksums that features should have."""
    blank = features.copy()
    blank["crc"] = 0
    return [zlib.crc32(feature) for feature in blank.view(f"V{blank.itemsize}").tolist()]


def row_key(row: int) -> bytes:
    """Return the key of a row in `features` and `images`."""
    return row.to_bytes(8, "big")


def bucket_key(key: int) -> bytes:
    """Return the key of a bucket in `buckets` and at the start of its directory entry."""
    return key.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Tables:
    """Handles of the named tables; they stay valid while the environment is open."""

    meta: Table
    directory: Table
    buckets: Table
    features: Table
    images: Table
    content: Table


_CRC_BYTES = 4

TABLE_COUNT = len(Tables.__slots__)
_PACKED = ("directory", "buckets")


def open_tables(env: lmdb.Environment, txn: Txn, *, create: bool) -> Tables:
    """Open the tables, or create them in a write transaction.

    Raises:
        NotAStore: A table is missing and was not to be created.
    """

    def handle(name: str) -> Table:
        packed = name in _PACKED
        return env.open_db(name.encode(), txn, dupsort=packed, dupfixed=packed, create=create)

    try:
        return Tables(*(handle(name) for name in Tables.__slots__))
    except (lmdb.NotFoundError, lmdb.ReadonlyError) as error:
        raise NotAStore("the LMDB file holds no image store; take another path") from error


@dataclass(frozen=True, slots=True)
class Record:
    """What the table `images` holds for a row."""

    image: Image
    code: bytes


def pack_record(image: Image, code: bytes) -> bytes:
    """Encode a record. Paths that are not valid UTF-8 survive as surrogates."""
    fields = (
        bytes.fromhex(image.id),
        code,
        image.origin,
        image.added_at,
        image.width_px,
        image.height_px,
        image.format,
        image.size_bytes,
        image.sources,
    )
    packed: bytes = msgpack.packb(fields, unicode_errors="surrogateescape")
    return zlib.crc32(packed).to_bytes(_CRC_BYTES, "little") + packed


def unpack_record(row: int, stored: bytes | memoryview) -> Record:
    """Decode a record.

    Raises:
        StoreDamaged: It is no record, or not the one that was written.
    """
    crc, packed = bytes(stored[:_CRC_BYTES]), stored[_CRC_BYTES:]
    if zlib.crc32(packed) != int.from_bytes(crc, "little"):
        raise StoreDamaged(f"the record of row {row} cannot be read; restore a backup")
    try:
        identity, code, origin, added_at, width_px, height_px, kind, size_bytes, sources = (
            msgpack.unpackb(packed, unicode_errors="surrogateescape")
        )
        image = Image(
            row=row,
            id=identity.hex(),
            sources=tuple(sources),
            origin=origin,
            added_at=added_at,
            width_px=width_px,
            height_px=height_px,
            format=kind,
            size_bytes=size_bytes,
        )
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise StoreDamaged(f"the record of row {row} cannot be read; restore a backup") from error
    return Record(image, code)


def new_image_record(row: int, new: NewImage) -> bytes:
    """Encode the record of an image that enters the store."""
    image = Image(
        row=row,
        id=new.id,
        sources=(new.source,),
        origin=new.origin,
        added_at=new.added_at,
        width_px=new.width_px,
        height_px=new.height_px,
        format=new.format,
        size_bytes=new.size_bytes,
    )
    return pack_record(image, new.code.tobytes())


def write_header(txn: Txn, tables: Tables, spec: StoreSpec) -> None:
    """Write what identifies a new store."""
    plain = (spec.bundle_id, spec.bits, spec.dims, spec.metric)
    txn.put(b"format", str(FORMAT).encode(), db=tables.meta)
    txn.put(b"spec", msgpack.packb(plain), db=tables.meta)
    if spec.centres is not None:
        txn.put(b"centres", spec.centres.tobytes(), db=tables.meta)
    write_next_row(txn, tables, 0)


def read_header(txn: Txn, tables: Tables) -> StoreSpec:
    """Read the spec that a store was created with.

    Raises:
        NotAStore: There is no header.
        StoreVersionError: The format is newer than this program.
    """
    version = txn.get(b"format", db=tables.meta)
    if version is None:
        raise NotAStore("the LMDB file holds no image store; take another path")
    if int(bytes(version)) > FORMAT:
        raise StoreVersionError(
            f"the store has format {int(bytes(version))}, and this version reads up to {FORMAT}; "
            "upgrade lookalike"
        )
    bundle_id, bits, dims, metric = msgpack.unpackb(_required(txn, tables, b"spec"))
    spec = StoreSpec(bundle_id=bundle_id, bits=bits, dims=dims, metric=metric)
    packed = txn.get(b"centres", db=tables.meta)
    if packed is None:
        return spec
    centres = np.frombuffer(bytes(packed), np.uint8).reshape(-1, spec.code_bytes)
    return StoreSpec(bundle_id=bundle_id, bits=bits, dims=dims, metric=metric, centres=centres)


def write_next_row(txn: Txn, tables: Tables, row: int) -> None:
    """Keep the number that the next new image gets."""
    txn.put(b"next_row", row_key(row), db=tables.meta)


def read_next_row(txn: Txn, tables: Tables) -> int:
    """Return the number that the next new image gets."""
    return int.from_bytes(_required(txn, tables, b"next_row"), "big")


def _required(txn: Txn, tables: Tables, name: bytes) -> bytes:
    value = txn.get(name, db=tables.meta)
    if value is None:
        raise StoreDamaged(f"the header lacks {name.decode()!r}; restore a backup")
    return bytes(value)
