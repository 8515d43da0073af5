"""Filing codes in buckets: which key is in use, and what a bucket's entries and counts are.

A generation is a way to file codes. A store begins with generation 0, by the centres of its
bundle; retraining (`store.retraining`) files all images once more in the next generation while
the current one is searched, and then makes it the current one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from store.buckets import Buckets, CentreBuckets, open_buckets
from store.layout import (
    DELETION_ENTRY,
    DIRECTORY_LINE,
    bucket_entries,
    bucket_keys,
    number_key,
    row_key,
    write_number,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.snapshot import Snapshot
    from store.spec import StoreSpec

LOGGED_DELETIONS = 1 << 14
"""A mirror that has missed more is made anew."""


@dataclass(frozen=True, slots=True)
class Filing:
    """Where codes belong.

    Attributes:
        generation: Of the buckets.
        keys: shape=(N,), dtype=uint32.
        radii: Distances of the codes from the middle of their bucket, shape=(N,), dtype=uint16.
    """

    generation: int
    keys: NDArray[Any]
    radii: NDArray[Any]

    def of(self, places: NDArray[np.int64]) -> Filing:
        """Return the part of some of the codes."""
        return Filing(self.generation, self.keys[places], self.radii[places])


def join_filings(parts: Sequence[Filing]) -> Filing | None:
    """Join the parts of a batch; None where they are of different generations."""
    if len({part.generation for part in parts}) != 1:
        return None
    return Filing(
        parts[0].generation,
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.radii for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Key:
    """The way to file codes of one generation."""

    generation: int
    buckets: Buckets

    def file(self, codes: NDArray[np.uint8]) -> Filing:
        """Return where codes belong, shape=(N, W), dtype=uint8."""
        return Filing(self.generation, *self.buckets.file(codes))


class Keys:
    """The keys of a store. Other processes retrain it too, so each snapshot is asked anew."""

    def __init__(self, spec: StoreSpec) -> None:
        self._known = {0: Key(0, open_buckets(spec))}
        self.latest = self._known[0]

    def current(self, store: Snapshot) -> Key:
        """Return the key that searches use."""
        self.latest = self.of(store, store.number("generation"))
        return self.latest

    def of(self, store: Snapshot, generation: int) -> Key:
        """Return the key of a generation."""
        if generation not in self._known:
            centres = store.centres(generation)
            self._known[generation] = Key(generation, CentreBuckets(centres))
        return self._known[generation]


def generations(store: Snapshot) -> Iterator[int]:
    """Yield the generations that every image is filed in: two while the key is retrained."""
    yield store.number("generation")
    coming = store.number("next_generation")
    if coming:
        yield coming


def add_to_buckets(
    store: Snapshot,
    filing: Filing,
    rows: NDArray[np.int64],
    codes: NDArray[np.uint8],
    *,
    newest: bool,
) -> None:
    """File images.

    Args:
        store: A snapshot whose transaction may write.
        filing: Where they belong, N of them.
        rows: shape=(N,), ascending.
        codes: shape=(N, W), dtype=uint8.
        newest: No image in these buckets has a larger row: they can be appended.
    """
    order = np.argsort(filing.keys, kind="stable")
    entries = bucket_entries(rows[order], codes[order])
    names = bucket_keys(filing.generation, filing.keys[order])
    packed = entries.view(f"V{entries.itemsize}").tolist()
    cursor = store.txn.cursor(store.tables.buckets)
    cursor.putmulti(list(zip(names, packed, strict=True)), append=newest)
    _count_in(store, filing)


def remove_from_bucket(store: Snapshot, key: Key, row: int, code: bytes) -> None:
    """Take an image out of its bucket, if it is filed there."""
    codes = np.frombuffer(code, np.uint8)[None]
    filing = key.file(codes)
    entry = bucket_entries(np.array([row]), codes).tobytes()
    name = bucket_keys(filing.generation, filing.keys)[0]
    if store.txn.delete(name, entry, db=store.tables.buckets):
        with store.txn.cursor(store.tables.directory) as cursor:
            _change_count(cursor, filing.generation, int(filing.keys[0]), -1, 0)
        _log_deletion(store, filing, row)


def _log_deletion(store: Snapshot, filing: Filing, row: int) -> None:
    """Note what left the buckets, for the mirrors of other processes; the latest are kept."""
    txn, table, number = store.txn, store.tables.deletions, store.number("deletions")
    entry = np.array([(filing.generation, filing.keys[0], row)], DELETION_ENTRY)
    txn.put(row_key(number), entry.tobytes(), db=table, append=True)
    write_number(txn, store.tables, "deletions", number + 1)
    if number >= LOGGED_DELETIONS:
        txn.delete(row_key(number - LOGGED_DELETIONS), db=table)


def _count_in(store: Snapshot, filing: Filing) -> None:
    keys, places, counts = np.unique(filing.keys, return_inverse=True, return_counts=True)
    radii = np.zeros(len(keys), np.int64)
    np.maximum.at(radii, places, filing.radii)
    changes = zip(keys.tolist(), counts.tolist(), radii.tolist(), strict=True)
    with store.txn.cursor(store.tables.directory) as cursor:
        for key, count, radius in changes:
            _change_count(cursor, filing.generation, key, count, radius)


def _change_count(cursor: Any, generation: int, key: int, added: int, radius: int) -> None:
    """Count images of a bucket in or out. Its radius never shrinks until it is empty."""
    of_generation, name, count = number_key(generation), number_key(key), 0
    if cursor.set_range_dup(of_generation, name):
        there, before, largest = DIRECTORY_LINE.unpack(cursor.value())
        if there == name:
            count, radius = before, max(radius, largest)
            cursor.delete()
    if count + added > 0:
        cursor.put(of_generation, DIRECTORY_LINE.pack(name, count + added, radius))
