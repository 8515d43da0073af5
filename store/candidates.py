"""The first half of a search: which images are worth a comparison of features.

Buckets are taken nearest first until they hold enough codes; of those the codes nearest to the
query's stay. Whatever is left out is farther away than a bound that is known, so the answer can
say up to which Hamming distance it is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from store.codes import hamming, words
from store.filters import Sieve
from store.kernels import nearest_buckets, nearest_of
from store.spec import Query, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.buckets import Buckets
    from store.kernels import Nearest
    from store.snapshot import Directory, Snapshot

_WIDER = 4
"""How many times as many codes are looked at when too few of them pass a filter."""

Lap = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Share:
    """One of several equal parts of the images: those whose row leaves `group`.

    A row is for ever, and a bucket is of a generation: shares that see different generations, as
    they may at the end of a retraining, still have every image between them.
    """

    group: int
    groups: int

    def of(self, rows: NDArray[Any]) -> NDArray[np.bool_] | slice:
        """Return which images belong to the share: shape=(N,), dtype=bool, or all as a slice."""
        if self.groups == 1:
            return slice(None)
        own: NDArray[np.bool_] = rows % self.groups == self.group
        return own

    def part_of(self, count: int) -> int:
        """Return how many of something the share counts, so that all shares count each once."""
        return count // self.groups + (self.group < count % self.groups)


@dataclass(frozen=True, slots=True)
class Plan:
    """The buckets to look into.

    Attributes:
        keys: Bucket keys, shape=(P,), dtype=uint32.
        bound: No code in the other buckets is nearer; None when there are none.
        whole: No bucket is left out.
    """

    keys: NDArray[Any]
    bound: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Candidates:
    """Images to be compared by feature.

    Attributes:
        rows: shape=(N,), dtype=int64, ascending.
        hamming: Distances of their codes, shape=(N,), dtype=uint16.
        seen: Codes that were looked at and pass the filter, each counted by one share.
        buckets: Buckets that were looked into, each counted by one share.
        radius: All images of the share that pass and are so near are among them.
    """

    rows: NDArray[np.int64]
    hamming: NDArray[np.uint16]
    seen: int
    buckets: int
    radius: int


def find_candidates(
    store: Snapshot, buckets: Buckets, query: Query, share: Share, lap: Lap
) -> Candidates:
    """Find the images whose codes are nearest to the query's.

    Of equally near codes the older images win, so that every share draws the same line.

    Args:
        store: What is searched.
        buckets: How its codes are filed.
        query: Validated.
        share: The images to take into account.
        lap: Told what has just been done.
    """
    wanted = None if query.candidates is None else max(query.candidates, query.k)
    sieve = None if query.filter is None else Sieve.of(store, query.filter)
    if sieve is not None and sieve.labelled is not None and _few(sieve.labelled, wanted):
        return _of_rows(store, query.code, sieve, sieve.labelled, share)
    directory = store.directory()
    reach = None if wanted is None else wanted * buckets.codes_per_candidate
    while True:
        plan = make_plan(directory, buckets, query.code, reach)
        lap("plan")
        found = _nearest(store, query.code, sieve, plan, wanted)
        if reach is None or wanted is None or plan.whole or sieve is None or found.seen >= wanted:
            return _of_share(found, share, plan, store.spec.bits)
        reach *= _WIDER


def _nearest(
    store: Snapshot,
    code: NDArray[np.uint8],
    sieve: Sieve | None,
    plan: Plan,
    wanted: int | None,
) -> Nearest:
    """Find the nearest codes that pass."""
    if sieve is None:
        return store.nearest_codes(plan.keys, words(code), wanted)
    codes = store.bucket_codes(plan.keys)
    passing = codes.those(sieve.passing(codes.rows.astype(np.int64)))
    return nearest_of(passing, words(code), wanted)


def make_plan(
    directory: Directory,
    buckets: Buckets,
    code: NDArray[np.uint8],
    reach: int | None,
) -> Plan:
    """Choose buckets, nearest first, until they hold enough codes.

    Args:
        directory: Occupied buckets.
        buckets: How codes are filed.
        code: The query's, shape=(W,), dtype=uint8.
        reach: Codes to look at, or None for all.
    """
    total = int(directory.counts.sum())
    if reach is None or total <= reach:
        return Plan(directory.keys, None, whole=True)
    distances, bounds = buckets.reach(code, directory.keys, directory.radii)
    chosen, bound = nearest_buckets(distances, directory.counts, bounds, reach)
    return Plan(directory.keys[chosen], bound, whole=False)


def _of_share(found: Nearest, share: Share, plan: Plan, bits: int) -> Candidates:
    """Keep the share's part of what was found."""
    own = share.of(found.rows)
    bounds = (bits + 1, plan.bound, found.missed)
    return Candidates(
        rows=found.rows[own],
        hamming=found.hamming[own],
        seen=share.part_of(found.seen),
        buckets=share.part_of(len(plan.keys)),
        radius=min(each for each in bounds if each is not None) - 1,
    )


def _few(rows: NDArray[np.int64], wanted: int | None) -> bool:
    return wanted is None or len(rows) <= wanted


def _of_rows(
    store: Snapshot,
    code: NDArray[np.uint8],
    sieve: Sieve,
    rows: NDArray[np.int64],
    share: Share,
) -> Candidates:
    """Take all of a few known images, bucket or no bucket."""
    rows = rows[share.of(rows)]
    rows = rows[sieve.passing(rows)]
    stored = b"".join(store.record(row).code for row in rows.tolist())
    codes = np.frombuffer(stored, np.uint8).reshape(len(rows), len(code))
    return Candidates(rows, hamming(code, codes), len(rows), 0, store.spec.bits)
