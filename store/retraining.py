"""Retraining the key of long codes: filing all images by other centres, under way.

The centres that a bundle brings suit the images it was learned on, and a number of them suits a
number of images. So a store may be filed anew by centres learned from its own codes; whoever
learns them hands them in. All of it is done in short transactions, and searches and writes go on:

1. Begin: write the centres of the next generation, and up to which row images are to be filed in
   it. From here on inserts and deletes change both generations (`store.filing.generations`).
2. Steps: file the next few thousand rows. Their buckets are found before the lock is taken.
3. Switch: when all are filed, the next generation becomes the current one.
4. Sweep: delete the buckets of the generation before, some at a time.

How far it has come is in the header and in the tables, so any process goes on with it after a
`kill -9`, and two that do so at once do no step twice. A search sees one generation or the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.buckets import LONGEST_KEY_BITS
from store.errors import NothingToRetrain, StoreDamaged
from store.filing import Filing, add_to_buckets, generations
from store.layout import WORD_BYTES, centres_key, number_key, write_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.filing import Key, Keys
    from store.snapshot import Snapshot
    from store.spec import StoreSpec

STEP_ROWS = 4096

IMAGES_PER_CENTRE = 1024
FEWEST_CENTRES, MOST_CENTRES = 64, 8192

_TOO_FEW = 4
"""How many times as many centres must be wanted as there are."""

_FIXED_UP_TO = 50_000
"""Up to so many images the fixed centres do."""

_SWEPT_ENTRIES = 65_536
_SAMPLED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """A retraining that is under way.

    Attributes:
        centres: How many centre codes the coming generation files by.
        rows: Rows to be gone through, those of deleted images included.
        done: How many of them have been.
    """

    centres: int
    rows: int
    done: int


class Batch(NamedTuple):
    """Images that are about to be filed in the coming generation.

    Attributes:
        key: Of that generation.
        start: The first row that had not been gone through.
        stop: The first row that will not have been.
        rows: Rows of the images between, shape=(N,), ascending.
        codes: shape=(N, W), dtype=uint8.
    """

    key: Key
    start: int
    stop: int
    rows: NDArray[np.int64]
    codes: NDArray[np.uint8]


class Sample(NamedTuple):
    """Images drawn from a store: rows, shape=(S,), and codes, shape=(S, W), dtype=uint8."""

    rows: NDArray[np.int64]
    codes: NDArray[np.uint8]


def centres_wanted(images: int) -> int:
    """Return how many centre codes suit a number of images: a power of two."""
    wanted = 2 ** round(math.log2(max(images, 1) / IMAGES_PER_CENTRE))
    return int(min(max(wanted, FEWEST_CENTRES), MOST_CENTRES))


def centres_due(store: Snapshot, keys: Keys) -> int:
    """Return how many centre codes to learn; 0 where it would gain little.

    It gains much when there are far too few, or only the fixed ones and many images.
    """
    if store.spec.bits <= LONGEST_KEY_BITS or store.number("next_generation"):
        return 0
    images = store.count()
    wanted, key = centres_wanted(images), keys.current(store)
    fixed = key.generation == 0 and store.spec.centres is None
    if wanted >= _TOO_FEW * key.buckets.centres or (fixed and images > _FIXED_UP_TO):
        return wanted
    return 0


def check_centres(centres: NDArray[Any], spec: StoreSpec) -> None:
    """Insist on centres that codes can be filed by.

    Raises:
        NothingToRetrain: The codes are their own bucket key.
        ValueError: The centres have the wrong form, or two are the same.
    """
    if spec.bits <= LONGEST_KEY_BITS:
        raise NothingToRetrain(
            f"codes of {spec.bits} bits are their own bucket key, and nothing of it is learned; "
            f"only codes of more than {LONGEST_KEY_BITS} bits are filed by centres"
        )
    width, shape = spec.code_bytes, centres.shape
    if centres.dtype != np.uint8 or len(shape) != 2 or shape[1] != width or shape[0] < 1:
        raise ValueError(
            f"expected centres of shape (M, {width}) and dtype uint8, "
            f"got {shape} and {centres.dtype}"
        )
    if (centres[:, -1] & spec.padding_mask).any():
        raise ValueError(f"expected zeros after the {spec.bits} bits of each centre")
    if len(np.unique(centres, axis=0)) < len(centres):
        raise ValueError("expected centres that are all different")


def under_way(store: Snapshot) -> Retraining | None:
    """Return how far a retraining has come, or None where there is none."""
    coming = store.number("next_generation")
    if not coming:
        return None
    return Retraining(
        centres=len(store.centres(coming)),
        rows=store.number("refile_until"),
        done=store.number("refiled"),
    )


def begin(store: Snapshot, centres: NDArray[np.uint8]) -> None:
    """Begin to file by other centres; one that is under way with the same ones goes on.

    One with other centres is given up for this one. The number of a generation is never used
    again, because other processes remember what it means.
    """
    txn, tables, coming = store.txn, store.tables, store.number("next_generation")
    if coming and np.array_equal(store.centres(coming), centres):
        return
    fresh = max(coming, store.number("generation")) + 1
    txn.delete(centres_key(coming), db=tables.meta)
    txn.put(centres_key(fresh), centres.tobytes(), db=tables.meta)
    write_number(txn, tables, "next_generation", fresh)
    write_number(txn, tables, "refile_until", store.number("next_row"))
    write_number(txn, tables, "refiled", 0)


def next_batch(store: Snapshot, keys: Keys, most: int) -> Batch | None:
    """Return the images to be filed next, or None where all are, or nothing is under way."""
    coming = store.number("next_generation")
    if not coming or store.number("refiled") >= store.number("refile_until"):
        return None
    start, until = store.number("refiled"), store.number("refile_until")
    older = takewhile(lambda record: record.image.row < until, store.records_from(start))
    records = list(islice(older, most))
    rows = np.array([record.image.row for record in records], np.int64)
    codes = np.frombuffer(b"".join(record.code for record in records), np.uint8)
    codes = codes.reshape(len(rows), store.spec.code_bytes)
    stop = until if len(records) < most else int(rows[-1]) + 1
    return Batch(keys.of(store, coming), start, stop, rows, codes)


def file_batch(store: Snapshot, batch: Batch, filing: Filing) -> None:
    """File images in the coming generation, unless another process has done so.

    Args:
        store: A snapshot whose transaction may write.
        batch: The images; those that were deleted meanwhile are left out.
        filing: Where they belong.
    """
    here = store.number("next_generation"), store.number("refiled")
    if here != (batch.key.generation, batch.start):
        return
    kept = np.flatnonzero([store.holds(row) for row in batch.rows.tolist()])
    # Packed full as long as no image of a larger row has come into the generation.
    newest = store.number("next_row") == store.number("refile_until")
    add_to_buckets(store, filing.of(kept), batch.rows[kept], batch.codes[kept], newest=newest)
    write_number(store.txn, store.tables, "refiled", batch.stop)


def switch(store: Snapshot) -> bool:
    """Make the coming generation the current one, if all images are filed in it.

    Raises:
        StoreDamaged: It does not hold each image once.
    """
    coming, current = store.number("next_generation"), store.number("generation")
    if not coming or store.number("refiled") < store.number("refile_until"):
        return False
    filed = int(store.directory_of(coming).counts.sum())
    if filed != store.count():
        raise StoreDamaged(
            f"{filed} of {store.count()} images were filed anew; run the store check"
        )
    store.txn.delete(centres_key(current), db=store.tables.meta)
    write_number(store.txn, store.tables, "generation", coming)
    write_number(store.txn, store.tables, "next_generation", 0)
    return True


def sweep(store: Snapshot) -> None:
    """Delete some of the buckets that are of no generation in use."""
    kept = set(generations(store))
    left = _SWEPT_ENTRIES
    for table in (store.tables.directory, store.tables.buckets):
        with store.txn.cursor(table) as cursor:
            while left > 0 and _to_other_generation(cursor, kept):
                left -= cursor.count()
                cursor.delete(dupdata=True)


def to_sweep(store: Snapshot) -> bool:
    """Tell whether there are buckets of no generation in use."""
    kept = set(generations(store))
    tables = (store.tables.directory, store.tables.buckets)
    return any(_to_other_generation(store.txn.cursor(table), kept) for table in tables)


def draw(store: Snapshot, count: int, seed: int) -> Sample:
    """Draw images without repetition, at most as many as there are.

    Args:
        store: What is drawn from.
        count: S.
        seed: The same draws the same from an unchanged store.
    """
    directory = store.directory()
    total = int(directory.counts.sum())
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(total, min(count, total), replace=False))
    ends = np.cumsum(directory.counts)
    rows, codes = [np.empty(0, np.int64)], [np.empty((0, store.spec.code_bytes), np.uint8)]
    for some in np.split(np.arange(len(ends)), _cuts(ends)):
        first = int(ends[some[0]] - directory.counts[some[0]]) if len(some) else 0
        # Not from the mirror: a process that only looks after a store need not have one.
        _, found = store.stored_bucket_codes(directory.keys[some])
        here = chosen[(chosen >= first) & (chosen < first + len(found.rows))] - first
        rows.append(found.rows[here].astype(np.int64))
        codes.append(_bytes(found.words[here], store.spec.code_bytes))
    return Sample(np.concatenate(rows), np.concatenate(codes))


def _cuts(ends: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where to split the buckets so that a part holds about a million images."""
    parts: NDArray[np.intp] = np.flatnonzero(np.diff(ends // _SAMPLED_AT_ONCE)) + 1
    return parts


def _bytes(words: NDArray[np.uint64], width: int) -> NDArray[np.uint8]:
    every = np.ascontiguousarray(words).view(np.uint8)
    return every.reshape(len(words), words.shape[1] * WORD_BYTES)[:, :width]


def _to_other_generation(cursor: Any, kept: set[int]) -> bool:
    """Move to the first key that begins with a generation that is not kept."""
    found = cursor.first()
    while found:
        generation = int.from_bytes(bytes(cursor.key()[:4]), "big")
        if generation not in kept:
            return True
        found = cursor.set_range(number_key(generation + 1))
    return False
