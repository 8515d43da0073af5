"""The search: plan which buckets to look into, gather candidates, rerank them, merge answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from store.candidates import Share, find_candidates
from store.layout import HEAD
from store.spec import Partial, Query, Stage
from store.values import QueryValues, cosine_distances, l2_distances, query_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.buckets import Buckets
    from store.candidates import Candidates
    from store.segments import SegmentView
    from store.snapshot import Snapshot

CHUNK_ROWS = 512
"""Features compared at a time: another query finds them in the processor's cache."""

AHEAD_ROWS = 8192
"""Features that the disk is asked for at a time."""


@dataclass(slots=True)
class Stopwatch:
    """Adds up the time spent in each stage."""

    timings_ms: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: Stage) -> None:
        """Count the time since the last lap as time of this stage."""
        now = time.perf_counter()
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (now - self._since) * 1000
        self._since = now


def search(
    store: Snapshot, buckets: Buckets, queries: Sequence[Query], share: Share
) -> list[Partial]:
    """Answer queries from one share of the images.

    The shares of a query together compare exactly the images that a search of everything
    compares, provided that they see the same commit. Queries share the reading of features: one
    that several of them compare is read once.

    Args:
        store: What is searched.
        buckets: How its codes are filed.
        queries: Validated.
        share: The images to take into account.

    Returns:
        An answer to each; its timings are those of all queries together.
    """
    watch = Stopwatch()
    found = [find_candidates(store, buckets, query, share, watch.lap) for query in queries]
    watch.lap("gather")
    compared = rerank(
        store, [each.rows for each in found], [query.feature for query in queries], watch
    )
    answers = [
        _answer(query, candidates, *each, store.spec.bits)
        for query, candidates, each in zip(queries, found, compared, strict=True)
    ]
    watch.lap("rerank")
    return [replace(answer, timings_ms=watch.timings_ms) for answer in answers]


class Compared(NamedTuple):
    """The images that one query was compared with.

    Attributes:
        distances: Of the features, shape=(N,), dtype=float32.
        ids: shape=(N, 16), dtype=uint8.
    """

    distances: NDArray[np.float32]
    ids: NDArray[np.uint8]


def rerank(
    store: Snapshot,
    rows: Sequence[NDArray[np.int64]],
    features: Sequence[NDArray[np.float32]],
    watch: Stopwatch,
) -> list[Compared]:
    """Compute the distances of queries to stored features.

    Args:
        store: Where the features are.
        rows: For each query, shape=(N,), ascending.
        features: For each query, shape=(D,), dtype=float32.
        watch: Told what was reading and what was computing.
    """
    alone = len(rows) == 1
    union = rows[0] if alone else np.unique(np.concatenate(rows))
    heads = np.empty(len(union), HEAD)
    comparisons = [
        _Comparison.of(query_values(feature), each, None if alone else union)
        for feature, each in zip(features, rows, strict=True)
    ]
    for start in range(0, len(union), AHEAD_ROWS):
        parts = list(store.parts(union[start : start + AHEAD_ROWS]))
        store.expect(parts)
        watch.lap("gather")
        for place, segment, slots in parts:
            _compare(store.mapped(segment), slots, start + place.start, heads, comparisons)
        watch.lap("rerank")
    return [each.result(heads, store.spec.metric) for each in comparisons]


class _Comparison(NamedTuple):
    """One query, while it is compared.

    Attributes:
        query: As bytes.
        places: Where its images stand among those of all queries, shape=(N,), ascending; None
            where there is no other query.
        products: To be filled, shape=(N, 1 or 2), dtype=int32.
    """

    query: QueryValues
    places: NDArray[np.intp] | None
    products: NDArray[np.int32]

    @classmethod
    def of(
        cls, query: QueryValues, rows: NDArray[np.int64], union: NDArray[np.int64] | None
    ) -> Self:
        """Begin with nothing compared."""
        places = None if union is None else np.searchsorted(union, rows)
        return cls(query, places, query.room(len(rows)))

    def compare(self, values: NDArray[np.int8], slots: NDArray[np.int64], first: int) -> None:
        """Compare with those that are the query's own of images at the places from `first` on."""
        if self.places is None:
            own = slice(first, first + len(slots))
        else:
            own = slice(*np.searchsorted(self.places, (first, first + len(slots))).tolist())
            slots = slots[self.places[own] - first]
        self.query.multiply(values, slots, self.products[own])

    def result(self, heads: NDArray[Any], metric: str) -> Compared:
        """Return the distances, once all are compared."""
        own = heads if self.places is None else heads[self.places]
        return Compared(feature_distances(self.query, self.products, own, metric), own["id"])


def _compare(
    view: SegmentView,
    slots: NDArray[np.int64],
    first: int,
    heads: NDArray[Any],
    comparisons: Sequence[_Comparison],
) -> None:
    """Compare the images of one segment, whose places in `heads` are those from `first` on."""
    # The mode spares a copy; that the slots are there is known.
    np.take(view.heads, slots, out=heads[first : first + len(slots)], mode="clip")
    for start in range(0, len(slots), CHUNK_ROWS):
        for each in comparisons:
            each.compare(view.values, slots[start : start + CHUNK_ROWS], first + start)


def _answer(
    query: Query,
    candidates: Candidates,
    distances: NDArray[np.float32],
    ids: NDArray[np.uint8],
    bits: int,
) -> Partial:
    """Keep the k best of the images that were compared."""
    distances = distances + code_share(candidates.hamming, query.code_weight, bits)
    best = nearest(distances, ids, query.k)
    if query.max_distance is not None:
        best = best[distances[best] <= query.max_distance]
    return Partial(
        ids=ids[best],
        distances=distances[best],
        hamming=candidates.hamming[best],
        buckets=candidates.buckets,
        radius=candidates.radius,
        complete=candidates.radius == bits,
        candidates=candidates.seen,
        reranked=len(candidates.rows),
    )


def code_share(
    distances: NDArray[np.uint16], code_weight: float, bits: int
) -> NDArray[np.float32]:
    """Return what differing codes add to the distances of features.

    Args:
        distances: Hamming distances, shape=(N,), dtype=uint16.
        code_weight: `Query.code_weight`.
        bits: B.

    Returns:
        shape=(N,), dtype=float32; nothing is added where no bit differs.
    """
    share: NDArray[np.float32] = distances.astype(np.float32) * np.float32(code_weight / bits)
    return share


def feature_distances(
    query: QueryValues, products: NDArray[np.int32], heads: NDArray[Any], metric: str
) -> NDArray[np.float32]:
    """Return the distances of a query to stored features, shape=(N,), dtype=float32."""
    if metric == "cosine":
        return cosine_distances(query, products, heads["square"])
    return l2_distances(query, products, heads["square"], heads["scale"])


def nearest(distances: NDArray[np.float32], ids: NDArray[np.uint8], k: int) -> NDArray[np.intp]:
    """Return the positions of the k nearest, ordered by (distance, id).

    Args:
        distances: shape=(N,), dtype=float32.
        ids: shape=(N, 16), dtype=uint8.
        k: At least 1; all N are returned where k is larger.
    """
    near = np.arange(len(distances))
    if k < len(distances):
        near = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
    high, low = np.ascontiguousarray(ids[near]).view(">u8").reshape(-1, 2).T
    return near[np.lexsort((low, high, distances[near]))][:k]


def merge(partials: Sequence[Partial], k: int) -> Partial:
    """Join the answers of shards or groups into one.

    Args:
        partials: Answers to the same query; none at all make an answer that promises nothing.
        k: Number of hits wanted, at least 1.

    Returns:
        The k nearest by (distance, id), each id once; the smallest radius, summed counts, and
        the longest time of each stage.

    Raises:
        ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}")
    if not partials:
        return Partial()
    ids = np.concatenate([partial.ids for partial in partials])
    distances = np.concatenate([partial.distances for partial in partials])
    hamming = np.concatenate([partial.hamming for partial in partials])
    order = nearest(distances, ids, len(ids))
    best = order[_first_of_each(ids[order])][:k]
    stages = {stage for partial in partials for stage in partial.timings_ms}
    return Partial(
        ids=ids[best],
        distances=distances[best],
        hamming=hamming[best],
        buckets=sum(p.buckets for p in partials),
        radius=min(p.radius for p in partials),
        complete=all(p.complete for p in partials),
        candidates=sum(p.candidates for p in partials),
        reranked=sum(p.reranked for p in partials),
        timings_ms={s: max(p.timings_ms.get(s, 0.0) for p in partials) for s in sorted(stages)},
    )


def _first_of_each(ids: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return where each id stands for the first time, ascending."""
    _, first = np.unique(np.ascontiguousarray(ids).view("V16").reshape(-1), return_index=True)
    found: NDArray[np.intp] = np.sort(first)
    return found
