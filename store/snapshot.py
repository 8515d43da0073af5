"""Reading: one transaction, and the tables of the store as arrays.

A snapshot sees the store as it was when its transaction began, whatever is written meanwhile.
Everything that it returns is a copy and outlives the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import StoreDamaged
from store.layout import (
    DIRECTORY_ENTRY,
    DIRECTORY_KEY,
    Record,
    Tables,
    Txn,
    bucket_entry,
    feature_entry,
    row_key,
    unpack_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from store.spec import StoreSpec


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store at one moment.

    Args:
        txn: A transaction with `buffers=True`, or a write transaction.
        tables: Handles of the tables.
        spec: Spec of the store.
    """

    txn: Txn
    tables: Tables
    spec: StoreSpec

    def count(self) -> int:
        """Return the number of images."""
        return self.txn.stat(self.tables.images)["entries"]

    def used_bytes(self) -> int:
        """Return the size of the pages of all tables."""
        tables = (getattr(self.tables, name) for name in self.tables.__slots__)
        return sum(_table_bytes(self.txn.stat(table)) for table in tables)

    def directory(self) -> NDArray[Any]:
        """Return the occupied buckets by key: shape=(M,), dtype=DIRECTORY_ENTRY."""
        return self._packed(self.tables.directory, [DIRECTORY_KEY], DIRECTORY_ENTRY)["value"]

    def bucket_codes(self, keys: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the images of some buckets.

        Args:
            keys: shape=(M,), dtype=uint32.

        Returns:
            The bucket key of each image, shape=(N,), dtype=uint32 big-endian, and its entry,
            shape=(N,), dtype=bucket_entry(W).
        """
        names = keys.astype(">u4").view("V4").tolist()
        found = self._packed(self.tables.buckets, names, bucket_entry(self.spec.code_bytes))
        return np.ascontiguousarray(found["key"]).view(">u4"), found["value"]

    def features(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return stored features: shape=(N,), dtype=feature_entry(D), in the order of `rows`.

        Raises:
            StoreDamaged: A row has no feature of the right size.
        """
        get, table, entry = self.txn.get, self.tables.features, feature_entry(self.spec.dims)
        keys = rows.astype(">u8").view("V8").tolist()
        found = [get(key, b"", table) for key in keys]
        if any(len(value) != entry.itemsize for value in found):
            raise StoreDamaged("a stored image lacks its feature; run the store check")
        return np.frombuffer(b"".join(found), entry)

    def record(self, row: int) -> Record:
        """Return the record of a row.

        Raises:
            StoreDamaged: The row has none.
        """
        packed = self.txn.get(row_key(row), db=self.tables.images)
        if packed is None:
            raise StoreDamaged(f"row {row} has no record; run the store check")
        return unpack_record(row, packed)

    def records_before(self, row: int | None) -> Iterator[Record]:
        """Yield records from the newest on; with a row, those older than it."""
        cursor = self.txn.cursor(self.tables.images)
        found = cursor.last() if row is None else _before(cursor, row_key(row))
        while found:
            yield unpack_record(int.from_bytes(cursor.key(), "big"), cursor.value())
            found = cursor.prev()

    def row_of(self, identity: str) -> int | None:
        """Return the row of an image, or None; a malformed id belongs to no image."""
        try:
            name = bytes.fromhex(identity)
        except ValueError:
            return None
        row = self.txn.get(name, db=self.tables.content) if len(name) == 16 else None
        return None if row is None else int.from_bytes(row, "big")

    def _packed(self, table: Any, keys: list[bytes], value: np.dtype[Any]) -> NDArray[Any]:
        """Read all values under some keys, in bulk, into an array of (key, value)."""
        pair = np.dtype([("key", f"V{len(keys[0]) if keys else 4}"), ("value", value)])
        found = self.txn.cursor(table).getmulti(
            keys, dupdata=True, dupfixed_bytes=value.itemsize, keyfixed=True
        )
        return np.frombuffer(found, pair)


def _table_bytes(stat: Any) -> int:
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return int(pages * stat["psize"])


def _before(cursor: Any, key: bytes) -> bool:
    """Move to the last entry before a key."""
    return bool(cursor.prev() if cursor.set_range(key) else cursor.last())
