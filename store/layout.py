"""The format on disk, version 2. Nothing outside this file knows how anything is encoded.

One LMDB environment with eight named tables, and a folder of segments (`store.segments`):

| table | key | value |
|---|---|---|
| `meta` | name | format version, spec, centres, generation of the buckets, next row number |
| `directory` | generation | one packed entry per occupied bucket: key, images, radius |
| `buckets` | generation, bucket key | one packed entry per image: row, code |
| `segments` | segment | version, slots, dead slots; for a compacted one the rows in its slots |
| `images` | row | checksum; record: id, code, origin, time, size, format, sources, labels |
| `content` | id, 16 bytes | row |
| `labels` | label | one packed entry per image: row |
| `deletions` | number | generation, bucket key and row of an image that was deleted |

`directory`, `buckets` and `labels` hold many values of one size under a key (DUPSORT, DUPFIXED),
which LMDB packs without headers and hands out a page at a time. Keys and rows are big-endian,
so that byte order is number order and rows append at the end of their table. Codes are filled
up to whole words of 8 bytes, and so are keys of buckets: what is read in bulk is an array of
aligned words.

A bucket is of a generation. Retraining the key files every image once more in the next one,
while the current one is searched; see `store.retraining`.

LMDB has no checksums, so records and features carry a CRC-32. That of a record is compared at
every reading, that of a feature by the check alone: a search reads thousands of them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import lmdb
import msgpack
import numpy as np

from store.errors import NotAStore, StoreDamaged, StoreVersionError
from store.spec import Image, NewImage, StoreSpec

if TYPE_CHECKING:
    from lmdb import _Database as Table
    from numpy.typing import ArrayLike, NDArray

Txn: TypeAlias = "lmdb.Transaction[Any]"

FORMAT = 2

WORD_BYTES = 8

DIRECTORY_ENTRY = np.dtype([("key", ">u4"), ("count", "<u4"), ("radius", "<u4")])

DIRECTORY_LINE = struct.Struct("<4sII")
"""The same for a single entry, with the key as it stands."""

LABEL_ENTRY = np.dtype(">u8")

HEAD = np.dtype(
    [("id", "u1", 16), ("scale", "<f4"), ("square", "<u4"), ("crc", "<u4"), ("added", "<u4")]
)
"""What stands beside the values of a feature: id of its image, scale, sum of the squares of
its values, checksum, and the second in which the image was added."""

SEGMENT_ENTRY = np.dtype([("version", "<u4"), ("slots", "<u4"), ("dead", "<u4")])

LATEST = 0xFFFFFFFF

DELETION_ENTRY = np.dtype([("generation", ">u4"), ("key", ">u4"), ("row", ">u8")])


@lru_cache
def code_words(code_bytes: int) -> int:
    """Return the words of 8 bytes that a code takes in a bucket."""
    return -(-code_bytes // WORD_BYTES)


@lru_cache
def bucket_entry(code_bytes: int) -> np.dtype[Any]:
    """Return the type of one image's entry in a bucket."""
    return np.dtype([("row", ">u8"), ("code", "u1", (code_words(code_bytes) * WORD_BYTES,))])


def bucket_entries(rows: NDArray[Any], codes: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the entries of images.

    Args:
        rows: shape=(N,).
        codes: shape=(N, W), dtype=uint8.

    Returns:
        shape=(N,), dtype=bucket_entry(W).
    """
    entries = np.zeros(len(rows), bucket_entry(codes.shape[1]))
    entries["row"] = rows
    entries["code"][:, : codes.shape[1]] = codes
    return entries


def seal_features(heads: NDArray[Any], values: NDArray[np.int8]) -> None:
    """Fill in the checksums of features: heads, shape=(N,), and values, shape=(N, D)."""
    heads["crc"] = feature_checksums(heads, values)


def feature_checksums(heads: NDArray[Any], values: NDArray[np.int8]) -> list[int]:
    """Return the checksums that features should have."""
    blank = heads.copy()
    blank["crc"] = 0
    first = blank.view(f"V{HEAD.itemsize}").tolist()
    return [zlib.crc32(row, zlib.crc32(head)) for head, row in zip(first, values, strict=True)]


def seconds(moments: ArrayLike) -> NDArray[np.uint32]:
    """Return moments as the heads of features keep them: whole Unix seconds."""
    return np.clip(np.asarray(moments, np.float64), 0, LATEST).astype(np.uint32)


def row_key(row: int) -> bytes:
    """Return the key of a row in `images`; a negative one, out of damage, is in none."""
    return (row % (1 << 64)).to_bytes(8, "big")


def bucket_keys(generation: int, keys: NDArray[Any]) -> list[bytes]:
    """Return the keys of buckets in `buckets`.

    Args:
        generation: Of the buckets.
        keys: shape=(N,), dtype=uint32.
    """
    names = np.empty((len(keys), 2), ">u4")
    names[:, 0], names[:, 1] = generation, keys
    packed: list[bytes] = names.view("V8")[:, 0].tolist()
    return packed


LARGEST_NUMBER = 0xFFFFFFFF
"""Of a generation, or of a segment."""


def number_key(number: int) -> bytes:
    """Return the key of a generation in `directory`, or of a segment in `segments`."""
    return number.to_bytes(4, "big")


def centres_key(generation: int) -> bytes:
    """Return the name in `meta` of the centre codes of a retrained generation."""
    return f"centres of generation {generation}".encode()


@dataclass(frozen=True, slots=True)
class Tables:
    """Handles of the named tables; they stay valid while the environment is open."""

    meta: Table
    directory: Table
    buckets: Table
    segments: Table
    images: Table
    content: Table
    labels: Table
    deletions: Table


_CRC_BYTES = 4

_CODE_AT = _CRC_BYTES + 1 + 2 + 16 + 2
"""Where a record's code begins: after the checksum, msgpack's mark of a list, the id of 16 bytes
behind its mark, and the code's own mark, which is as short as that up to 255 bytes."""

_LONGEST_SHORT_CODE = 255

TABLE_COUNT = 9
"""One more than there are: `features` of a store of format 1."""

_PACKED = ("directory", "buckets", "labels")


def open_tables(env: lmdb.Environment, txn: Txn, *, create: bool) -> Tables:
    """Open the tables, or create them in a write transaction.

    Raises:
        NotAStore: A table is missing and was not to be created.
        StoreVersionError: The store is of another format.
        StoreDamaged: The format cannot be read.
    """

    def handle(name: str) -> Table:
        packed = name in _PACKED
        return env.open_db(name.encode(), txn, dupsort=packed, dupfixed=packed, create=create)

    try:
        meta = handle("meta")
        if not create:
            _insist_on_format(txn, meta)
        return Tables(meta, *(handle(name) for name in Tables.__slots__[1:]))
    except (lmdb.NotFoundError, lmdb.ReadonlyError) as error:
        raise NotAStore("the LMDB file holds no image store; take another path") from error


class Fields(NamedTuple):
    """What a record holds, in this order."""

    id: bytes
    code: bytes
    origin: str
    added_at: float
    width_px: int
    height_px: int
    format: str
    size_bytes: int
    sources: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What the table `images` holds for a row."""

    image: Image
    code: bytes


def pack_record(image: Image, code: bytes) -> bytes:
    """Encode a record. Paths that are not valid UTF-8 survive as surrogates."""
    fields = (getattr(image, name) for name in Fields._fields[2:])
    return _sealed((bytes.fromhex(image.id), code, *fields))


def new_image_record(new: NewImage, name: bytes, code: bytes, labels: tuple[str, ...]) -> bytes:
    """Encode the record of an image that enters the store, by its id of 16 bytes."""
    fields = (
        name,
        code,
        new.origin,
        new.added_at,
        new.width_px,
        new.height_px,
        new.format,
        new.size_bytes,
        (new.source,),
        labels,
    )
    return _sealed(fields)


def _sealed(fields: tuple[Any, ...]) -> bytes:
    packed: bytes = _packer.pack(fields)
    return zlib.crc32(packed).to_bytes(_CRC_BYTES, "little") + packed


_packer = msgpack.Packer(unicode_errors="surrogateescape")
_UNREADABLE = (ValueError, TypeError, msgpack.UnpackException)
_unpack = partial(msgpack.unpackb, unicode_errors="surrogateescape", use_list=False)


def unpack_record(row: int, stored: bytes | memoryview) -> Record:
    """Decode a record.

    Raises:
        StoreDamaged: It is no record, or not the one that was written.
    """
    identity, code, origin, added_at, width, height, kind, size, sources, labels = unpack_fields(
        row, stored
    )
    image = Image(
        row=row,
        id=identity.hex(),
        sources=sources,
        labels=labels,
        origin=origin,
        added_at=added_at,
        width_px=width,
        height_px=height,
        format=kind,
        size_bytes=size,
    )
    return Record(image, code)


def unpack_fields(row: int, stored: bytes | memoryview) -> Fields:
    """Decode a record into its fields, which takes a third of the time.

    Raises:
        StoreDamaged: It is no record, or not the one that was written.
    """
    sealed = bytes(stored)
    packed = sealed[_CRC_BYTES:]
    if zlib.crc32(packed) != int.from_bytes(sealed[:_CRC_BYTES], "little"):
        raise StoreDamaged(f"the record of row {row} cannot be read; restore a backup")
    try:
        return Fields(*_unpack(packed))
    except _UNREADABLE as error:
        raise StoreDamaged(f"the record of row {row} cannot be read; restore a backup") from error


def code_in(stored: bytes | memoryview, code_bytes: int) -> bytes:
    """Return the code of a record without decoding the rest of it."""
    if code_bytes > _LONGEST_SHORT_CODE:
        return unpack_record(0, stored).code
    return bytes(stored[_CODE_AT : _CODE_AT + code_bytes])


def write_header(txn: Txn, tables: Tables, spec: StoreSpec) -> None:
    """Write what identifies a new store."""
    plain = (spec.bundle_id, spec.bits, spec.dims, spec.metric)
    txn.put(b"format", str(FORMAT).encode(), db=tables.meta)
    txn.put(b"spec", msgpack.packb(plain), db=tables.meta)
    if spec.centres is not None:
        txn.put(b"centres", spec.centres.tobytes(), db=tables.meta)
    write_number(txn, tables, "generation", 0)
    write_number(txn, tables, "next_generation", 0)
    write_number(txn, tables, "next_row", 0)
    write_number(txn, tables, "deletions", 0)


def read_header(txn: Txn, tables: Tables) -> StoreSpec:
    """Read the spec that a store was created with.

    Raises:
        StoreDamaged: The header lacks it, or it cannot be read.
    """
    return unpack_spec(_required(txn, tables, "spec"), txn.get(b"centres", db=tables.meta))


def unpack_spec(packed: bytes, centres: bytes | memoryview | None) -> StoreSpec:
    """Return the spec that stands in a header.

    Raises:
        StoreDamaged: It cannot be read.
    """
    try:
        bundle_id, bits, dims, metric = msgpack.unpackb(packed)
        spec = StoreSpec(bundle_id=bundle_id, bits=bits, dims=dims, metric=metric)
        if centres is None:
            return spec
        codes = np.frombuffer(bytes(centres), np.uint8).reshape(-1, spec.code_bytes)
        return replace(spec, centres=codes)
    except _UNREADABLE as error:
        raise StoreDamaged("the header cannot be read; restore a backup") from error


def write_number(txn: Txn, tables: Tables, name: str, number: int) -> None:
    """Keep a number of the store, such as the row that the next new image gets."""
    txn.put(name.encode(), row_key(number), db=tables.meta)


def read_number(txn: Txn, tables: Tables, name: str) -> int:
    """Return a number of the store.

    Raises:
        StoreDamaged: The header lacks it.
    """
    return int.from_bytes(_required(txn, tables, name), "big")


def read_format(txn: Txn, meta: Table) -> int:
    """Return the version of a store's format.

    Raises:
        NotAStore: There is none.
        StoreDamaged: It cannot be read.
    """
    version = txn.get(b"format", db=meta)
    if version is None:
        raise NotAStore("the LMDB file holds no image store; take another path")
    try:
        return int(bytes(version))
    except ValueError as error:
        raise StoreDamaged("the header cannot be read; restore a backup") from error


def _insist_on_format(txn: Txn, meta: Table) -> None:
    version = read_format(txn, meta)
    if version > FORMAT:
        raise StoreVersionError(
            f"the store has format {version}, and this version reads up to {FORMAT}; "
            "upgrade lookalike"
        )
    if version < FORMAT:
        raise StoreVersionError(
            f"the store has format {version}, of an earlier version; bring it to "
            f"format {FORMAT} with `lookalike store migrate`"
        )


def _required(txn: Txn, tables: Tables, name: str) -> bytes:
    value = txn.get(name.encode(), db=tables.meta)
    if value is None:
        raise StoreDamaged(f"the header lacks {name!r}; restore a backup")
    return bytes(value)
