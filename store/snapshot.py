"""Reading: one transaction, and the tables of the store as arrays.

A snapshot sees the store as it was when its transaction began, whatever is written meanwhile.
Everything that it returns is a copy and outlives the transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.errors import StoreDamaged
from store.kernels import Codes, nearest_of
from store.layout import (
    DELETION_ENTRY,
    DIRECTORY_ENTRY,
    HEAD,
    LABEL_ENTRY,
    LARGEST_NUMBER,
    WORD_BYTES,
    Record,
    Tables,
    Txn,
    bucket_entry,
    bucket_keys,
    centres_key,
    code_in,
    code_words,
    number_key,
    read_number,
    row_key,
    unpack_record,
)
from store.segments import SEGMENT_ROWS, Segments, SegmentView, in_memory
from store.slots import Part, Segment, unpack_segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from store.kernels import Nearest
    from store.mirror import Mirror
    from store.spec import StoreSpec

_SAMPLED_SLOTS = 8


class Directory(NamedTuple):
    """The occupied buckets, by key.

    Attributes:
        keys: shape=(M,), dtype=uint32.
        counts: Images, shape=(M,), dtype=int64.
        radii: No code is further from the middle of its bucket, shape=(M,), dtype=int16.
    """

    keys: NDArray[np.uint32]
    counts: NDArray[np.int64]
    radii: NDArray[np.int16]


class Moment(NamedTuple):
    """What was read of the store as one transaction left it.

    Attributes:
        txn: The transaction's number.
        directories: By generation.
        segments: By number.
    """

    txn: int
    directories: dict[int, Directory]
    segments: dict[int, Segment]


@dataclass(slots=True)
class Cache:
    """What searches of an unchanged store need not read again.

    Attributes:
        mirror: The codes of all images.
        moment: What was read last.
    """

    mirror: Mirror
    moment: Moment = field(default_factory=lambda: Moment(-1, {}, {}))

    def at(self, txn: int) -> Moment:
        """Return what was read as of a transaction, which other threads may be adding to."""
        moment = self.moment
        if moment.txn != txn:
            moment = self.moment = Moment(txn, {}, {})
        return moment


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The store at one moment.

    Args:
        txn: A transaction with `buffers=True`, or a write transaction.
        tables: Handles of the tables.
        spec: Spec of the store.
        files: Where the features are.
        cache: Of the shard; None in a write transaction, which sees its own changes.
    """

    txn: Txn
    tables: Tables
    spec: StoreSpec
    files: Segments
    cache: Cache | None = None

    def count(self) -> int:
        """Return the number of images."""
        return self.txn.stat(self.tables.images)["entries"]

    def number(self, name: str) -> int:
        """Return a number of the header, such as the generation of the buckets."""
        return read_number(self.txn, self.tables, name)

    def used_bytes(self) -> int:
        """Return the size of the pages of all tables, and of the slots that count."""
        tables = (getattr(self.tables, name) for name in self.tables.__slots__)
        slots = sum(segment.slots - segment.dead for segment in self.segments())
        in_files = slots * (self.spec.dims + HEAD.itemsize)
        return sum(_table_bytes(self.txn.stat(table)) for table in tables) + in_files

    def directory(self) -> Directory:
        """Return the occupied buckets of the current generation."""
        generation = self.number("generation")
        if self.cache is None:
            return self.directory_of(generation)
        directories = self.cache.at(self.txn.id()).directories
        if generation not in directories:
            directories[generation] = self.directory_of(generation)
        return directories[generation]

    def directory_of(self, generation: int) -> Directory:
        """Return the occupied buckets of a generation."""
        found = self._packed(self.tables.directory, [number_key(generation)], DIRECTORY_ENTRY)
        entries = found["value"]
        return Directory(
            entries["key"].astype(np.uint32),
            entries["count"].astype(np.int64),
            entries["radius"].astype(np.int16),
        )

    @property
    def code_words(self) -> int:
        """Words V of 8 bytes that a code is filled up to."""
        return code_words(self.spec.code_bytes)

    def bucket_codes(self, keys: NDArray[Any]) -> Codes:
        """Return the images of some buckets of the current generation, from memory if possible.

        Args:
            keys: shape=(M,), dtype=uint32, ascending.
        """
        mirrored = None if self.cache is None else self.cache.mirror.bucket_codes(self, keys)
        return self.stored_bucket_codes(keys)[1] if mirrored is None else mirrored

    def nearest_codes(
        self, keys: NDArray[Any], code: NDArray[np.uint64], wanted: int | None
    ) -> Nearest:
        """Return the nearest codes of some buckets.

        Args:
            keys: shape=(M,), dtype=uint32, ascending.
            code: Filled up to words, shape=(V,), dtype=uint64.
            wanted: How many; None for all.
        """
        mirror = None if self.cache is None else self.cache.mirror
        found = None if mirror is None else mirror.nearest(self, keys, code, wanted)
        return (
            nearest_of(self.stored_bucket_codes(keys)[1], code, wanted) if found is None else found
        )

    def stored_bucket_codes(
        self, keys: NDArray[Any], generation: int | None = None
    ) -> tuple[NDArray[np.uint32], Codes]:
        """Read the images of some buckets.

        Args:
            keys: shape=(M,), dtype=uint32.
            generation: Of the buckets; by default the current one.

        Returns:
            The bucket of each, shape=(N,), dtype=uint32, and the images.
        """
        if generation is None:
            generation = self.number("generation")
        entry = bucket_entry(self.spec.code_bytes)
        found = self._packed(self.tables.buckets, bucket_keys(generation, keys), entry)
        words = found.view(np.uint64).reshape(len(found), 2 + self.code_words)
        rows = words[:, 1].view(">u8").astype(np.int64)
        return words.view(">u4")[:, 1].astype(np.uint32), Codes(rows, words[:, 2:])

    def codes_from(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the rows of images from a row on, ascending, and their codes, shape=(N, W)."""
        rows, codes = [], []
        cursor = self.txn.cursor(self.tables.images)
        found = cursor.set_range(row_key(row))
        while found:
            key, packed = cursor.item()
            rows.append(int.from_bytes(key, "big"))
            codes.append(code_in(packed, self.spec.code_bytes))
            found = cursor.next()
        joined = np.frombuffer(b"".join(codes), np.uint8)
        return np.array(rows, np.int64), joined.reshape(len(rows), self.spec.code_bytes)

    def deleted_since(self, number: int) -> NDArray[np.int64]:
        """Return what was deleted from the current generation's buckets since a deletion.

        Returns:
            Bucket and row of each, shape=(G, 2), dtype=int64.
        """
        cursor = self.txn.cursor(self.tables.deletions)
        found, packed = cursor.set_range(row_key(number)), []
        while found:
            packed.append(bytes(cursor.value()))
            found = cursor.next()
        gone = np.frombuffer(b"".join(packed), DELETION_ENTRY)
        gone = gone[gone["generation"] == self.number("generation")]
        return np.stack([gone["key"], gone["row"]], axis=1).astype(np.int64)

    def deletions_kept_from(self) -> int:
        """Return the first number from which on the log of deletions is whole."""
        cursor = self.txn.cursor(self.tables.deletions)
        return int.from_bytes(cursor.key(), "big") if cursor.first() else self.number("deletions")

    def segments(self) -> Iterator[Segment]:
        """Yield all segments that hold an image."""
        for key, packed in self.txn.cursor(self.tables.segments):
            yield unpack_segment(int.from_bytes(key, "big"), packed)

    def segment(self, number: int) -> Segment | None:
        """Return a segment, or None where it holds no image."""
        if self.cache is None:
            return self._segment(number)
        segments = self.cache.at(self.txn.id()).segments
        if number not in segments and (found := self._segment(number)) is not None:
            segments[number] = found
        return segments.get(number)

    def _segment(self, number: int) -> Segment | None:
        if not 0 <= number <= LARGEST_NUMBER:  # of a row that only damage can have made
            return None
        packed = self.txn.get(number_key(number), db=self.tables.segments)
        return None if packed is None else unpack_segment(number, packed)

    def mapped(self, segment: Segment) -> SegmentView:
        """Return the heads and values of a segment, as they lie in its file."""
        return self.files.view(segment.number, segment.version, segment.slots)

    def parts(self, rows: NDArray[np.int64]) -> Iterator[Part]:
        """Split rows by the segments that hold them.

        Args:
            rows: shape=(N,), ascending.

        Raises:
            StoreDamaged: A row is in no segment.
        """
        numbers = rows // SEGMENT_ROWS
        cuts = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
        for start, stop in pairwise([0, *cuts.tolist(), len(rows)]):
            if start == stop:
                return
            segment = self.segment(int(numbers[start]))
            if segment is None:
                raise StoreDamaged("a stored image lacks its feature; run the store check")
            yield Part(slice(start, stop), segment, segment.slots_of(rows[start:stop]))

    def features(
        self, rows: NDArray[np.int64], heads: NDArray[Any], values: NDArray[np.int8]
    ) -> None:
        """Read stored features in the order of `rows`.

        Args:
            rows: shape=(N,), ascending.
            heads: Where to put the heads, shape=(N,), dtype=HEAD.
            values: Where to put the values, shape=(N, D).

        Raises:
            StoreDamaged: A row has no feature.
        """
        for place, segment, slots in self.parts(rows):
            view = self.mapped(segment)
            # The mode spares a copy; that the slots are there is known.
            np.take(view.heads, slots, out=heads[place], mode="clip")
            np.take(view.values, slots, axis=0, out=values[place], mode="clip")

    def feature(self, row: int) -> tuple[NDArray[Any], NDArray[np.int8]]:
        """Return the head, shape=(1,), and the values, shape=(1, D), of one row."""
        heads, values = np.empty(1, HEAD), np.empty((1, self.spec.dims), np.int8)
        self.features(np.array([row]), heads, values)
        return heads, values

    def heads(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the heads of features in the order of ascending rows, shape=(N,), dtype=HEAD."""
        heads = np.empty(len(rows), HEAD)
        for place, segment, slots in self.parts(rows):
            np.take(self.mapped(segment).heads, slots, out=heads[place], mode="clip")
        return heads

    def expect(self, parts: Sequence[Part]) -> None:
        """Have the disk read features that are about to be needed, unless they are in memory.

        One after the other, each would wait for the disk; all at once they share the wait.
        A few are asked for, because asking for all would cost as much as reading them.
        """
        if not parts or self._in_memory(max(parts, key=lambda part: len(part[2]))):
            return
        for _, segment, slots in parts:
            self.mapped(segment).expect(slots)

    def _in_memory(self, part: Part) -> bool:
        _, segment, slots = part
        sample = slots[:: max(1, len(slots) // _SAMPLED_SLOTS)]
        path = self.files.path(segment.number, segment.version)
        return in_memory(self.mapped(segment), path, sample)

    def record(self, row: int) -> Record:
        """Return the record of a row.

        Raises:
            StoreDamaged: The row has none.
        """
        packed = self.txn.get(row_key(row), db=self.tables.images)
        if packed is None:
            raise StoreDamaged(f"row {row} has no record; run the store check")
        return unpack_record(row, packed)

    def holds(self, row: int) -> bool:
        """Tell whether an image has this row."""
        return self.txn.get(row_key(row), db=self.tables.images) is not None

    def mentions(self, row: int, text: bytes) -> bool:
        """Tell whether a record has these bytes somewhere: far cheaper than decoding it."""
        packed = self.txn.get(row_key(row), db=self.tables.images)
        return packed is not None and text in bytes(packed)

    def records_before(self, row: int | None) -> Iterator[Record]:
        """Yield records from the newest on; with a row, those older than it."""
        cursor = self.txn.cursor(self.tables.images)
        found = cursor.last() if row is None else _before(cursor, row_key(row))
        while found:
            yield unpack_record(int.from_bytes(cursor.key(), "big"), cursor.value())
            found = cursor.prev()

    def records_from(self, row: int) -> Iterator[Record]:
        """Yield records from a row on, oldest first."""
        cursor = self.txn.cursor(self.tables.images)
        found = cursor.set_range(row_key(row))
        while found:
            yield unpack_record(int.from_bytes(cursor.key(), "big"), cursor.value())
            found = cursor.next()

    def row_of(self, identity: str) -> int | None:
        """Return the row of an image, or None; a malformed id belongs to no image."""
        try:
            name = bytes.fromhex(identity)
        except ValueError:
            return None
        return self.row_of_bytes(name) if len(name) == 16 else None

    def row_of_bytes(self, name: bytes) -> int | None:
        """Return the row of an image by its id of 16 bytes, or None."""
        row = self.txn.get(name, db=self.tables.content)
        return None if row is None else int.from_bytes(row, "big")

    def record_of(self, name: bytes) -> Record:
        """Return the record of a stored image by its id of 16 bytes.

        Raises:
            StoreDamaged: There is none.
        """
        row = self.row_of_bytes(name)
        if row is None:
            raise StoreDamaged(f"image {name.hex()} is not in the content index")
        return self.record(row)

    def centres(self, generation: int) -> NDArray[np.uint8]:
        """Return the centre codes that a retrained generation files by, shape=(M, W).

        Raises:
            StoreDamaged: There are none.
        """
        packed = self.txn.get(centres_key(generation), db=self.tables.meta)
        if packed is None:
            raise StoreDamaged(f"the centres of generation {generation} are missing")
        return np.frombuffer(bytes(packed), np.uint8).reshape(-1, self.spec.code_bytes)

    def labels(self) -> dict[str, int]:
        """Return each label with the number of its images."""
        counts = {}
        cursor = self.txn.cursor(self.tables.labels)
        for key in cursor.iternext_nodup(keys=True, values=False):
            counts[bytes(key).decode()] = cursor.count()
        return counts

    def labelled(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of images that have one of the labels: shape=(N,), ascending."""
        names = (label.encode() for label in sorted(set(labels)))
        rows = [self._packed(self.tables.labels, [name], LABEL_ENTRY)["value"] for name in names]
        return np.unique(np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64))

    def _packed(self, table: Any, keys: list[bytes], value: np.dtype[Any]) -> NDArray[Any]:
        """Read all values under some keys, in bulk, into an array of (key, value)."""
        pair = np.dtype([("key", f"V{len(keys[0]) if keys else WORD_BYTES}"), ("value", value)])
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
