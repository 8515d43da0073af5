"""Reading a store of format 1, to bring it to the format in use; see `store.migrate`.

Format 1 kept everything in LMDB, features beside records:

| table | key | value |
|---|---|---|
| `meta` | name | format version, spec, centres, next row number |
| `features` | row | id, scale, length, checksum, D signed bytes |
| `images` | row | checksum; record: id, code, origin, time, size, format, sources |
| `content` | id, 16 bytes | row |

What stood in its `directory` and `buckets` follows from the records.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgpack
import numpy as np

from store.errors import StoreDamaged
from store.layout import row_key, unpack_spec
from store.spec import Image, StoreSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lmdb
    from lmdb import _Database as Table
    from numpy.typing import NDArray

    from store.layout import Txn

OLD_FORMAT = 1

_TABLES = (b"features", b"images", b"content")
_FEATURE_HEAD = np.dtype([("id", "u1", 16), ("scale", "<f4"), ("length", "<f4"), ("crc", "<u4")])
_CRC_BYTES = 4
_UNREADABLE = (ValueError, TypeError, AttributeError, msgpack.UnpackException)


class Damage(Exception):
    """Something about a row is not what was written; says what."""


class OldImage(NamedTuple):
    """An image of a store of format 1.

    Attributes:
        image: Its record, which has no labels.
        code: W bytes.
        scale: Of the values.
        values: Feature, shape=(D,), dtype=int8.
    """

    image: Image
    code: bytes
    scale: float
    values: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class OldStore:
    """A store of format 1, as a transaction sees it.

    Attributes:
        spec: What it was made for.
        next_row: The row that the next image would get.
    """

    txn: Txn
    features: Table
    images: Table
    content: Table
    spec: StoreSpec
    next_row: int

    @classmethod
    def open(cls, env: lmdb.Environment, txn: Txn) -> OldStore:
        """Open the tables; the transaction has to be one that may write.

        Raises:
            StoreDamaged: The header is incomplete, or cannot be read.
        """
        meta = env.open_db(b"meta", txn, create=False)
        features, images, content = (env.open_db(name, txn, create=False) for name in _TABLES)
        next_row = int.from_bytes(_required(txn, meta, b"next_row"), "big")
        spec = unpack_spec(_required(txn, meta, b"spec"), txn.get(b"centres", db=meta))
        return cls(txn, features, images, content, spec, next_row)

    def count(self) -> int:
        """Return the number of images."""
        return self.txn.stat(self.images)["entries"]

    def record_bytes(self) -> int:
        """Return the size of the records and of their index."""
        stats = (self.txn.stat(table) for table in (self.images, self.content))
        return sum(
            (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]
            for stat in stats
        )

    def rows(self) -> Iterator[int]:
        """Yield the rows in use, ascending."""
        for key in self.txn.cursor(self.images).iternext(keys=True, values=False):
            yield int.from_bytes(key, "big")

    def image(self, row: int) -> OldImage:
        """Return the image of a row.

        Raises:
            Damage: Its record or its feature is not what was written.
        """
        image, code = self._record(row)
        known = self.txn.get(bytes.fromhex(image.id), db=self.content)
        if known is None or int.from_bytes(known, "big") != row:
            raise Damage(f"image {image.id} of row {row} is not in the content index")
        return OldImage(image, code, *self._feature(row, image.id))

    def strays(self) -> Iterator[str]:
        """Yield a sentence for each feature without a record."""
        if self.txn.stat(self.features)["entries"] == self.count():
            return
        for key in self.txn.cursor(self.features).iternext(keys=True, values=False):
            if self.txn.get(bytes(key), db=self.images) is None:
                yield f"the feature of row {int.from_bytes(key, 'big')} has no record"

    def _record(self, row: int) -> tuple[Image, bytes]:
        packed = bytes(self.txn.get(row_key(row), b"", db=self.images))
        crc, fields = packed[:_CRC_BYTES], packed[_CRC_BYTES:]
        if zlib.crc32(fields) != int.from_bytes(crc, "little"):
            raise Damage(f"the record of row {row} cannot be read")
        try:
            image, code = _unpacked(row, fields)
        except _UNREADABLE as error:
            raise Damage(f"the record of row {row} cannot be read") from error
        if len(code) != self.spec.code_bytes:
            raise Damage(f"the code of row {row} has {len(code)} bytes")
        return image, code

    def _feature(self, row: int, identity: str) -> tuple[float, NDArray[np.int8]]:
        packed = bytes(self.txn.get(row_key(row), b"", db=self.features))
        size = _FEATURE_HEAD.itemsize
        if len(packed) != size + self.spec.dims:
            raise Damage(f"the feature of row {row} has {len(packed)} bytes")
        head = np.frombuffer(packed[:size], _FEATURE_HEAD)[0]
        blank = packed[: size - _CRC_BYTES] + bytes(_CRC_BYTES)
        if zlib.crc32(packed[size:], zlib.crc32(blank)) != head["crc"]:
            raise Damage(f"the feature of row {row} is not what was written")
        if head["id"].tobytes().hex() != identity:
            raise Damage(f"the feature of row {row} belongs to another image")
        return float(head["scale"]), np.frombuffer(packed, np.int8, offset=size)


def _unpacked(row: int, fields: bytes) -> tuple[Image, bytes]:
    identity, code, origin, added_at, width_px, height_px, kind, size_bytes, sources = (
        msgpack.unpackb(fields, unicode_errors="surrogateescape")
    )
    image = Image(
        row=row,
        id=identity.hex(),
        sources=tuple(sources),
        labels=(),
        origin=origin,
        added_at=added_at,
        width_px=width_px,
        height_px=height_px,
        format=kind,
        size_bytes=size_bytes,
    )
    return image, code


def _required(txn: Txn, meta: Table, name: bytes) -> bytes:
    value = txn.get(name, db=meta)
    if value is None:
        raise StoreDamaged(f"the header lacks {name.decode()!r}; restore a backup")
    return bytes(value)
