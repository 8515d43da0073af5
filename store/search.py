"""The search: plan which buckets to look into, probe them, merge partial answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from store import values
from store.codes import hamming
from store.spec import Hit, Partial, Query, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.buckets import Buckets
    from store.snapshot import Snapshot

CHUNK_ROWS = 1024
"""Features compared at a time; an exhaustive search must not need the whole store in memory."""


@dataclass(frozen=True, slots=True)
class Share:
    """One of several equal parts of the buckets: those whose key leaves `group`."""

    group: int
    groups: int

    def of(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which buckets belong to the share, shape=(M,), dtype=bool."""
        own: NDArray[np.bool_] = keys % self.groups == self.group
        return own


@dataclass(frozen=True, slots=True)
class Plan:
    """The buckets to look into.

    Attributes:
        keys: Bucket keys, nearest first, shape=(P,), dtype=uint32.
        bounds: Lower bounds on the distance of what the share's other buckets hold,
            shape=(M-P',), dtype=int64; empty when the share is read whole.
    """

    keys: NDArray[Any]
    bounds: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Images to be compared by feature.

    Attributes:
        rows: shape=(N,), dtype=int64, ascending.
        hamming: Distances of their codes, shape=(N,), dtype=uint16.
        seen: Codes of the share that were looked at.
        nearest_dropped: Least Hamming distance among those left out, or None.
    """

    rows: NDArray[np.int64]
    hamming: NDArray[np.uint16]
    seen: int
    nearest_dropped: int | None


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


def search(store: Snapshot, buckets: Buckets, query: Query, share: Share) -> Partial:
    """Answer a query from one share of the buckets.

    The shares of a query together compare exactly the images that a search of everything
    compares, provided that they see the same commit.

    Args:
        store: What is searched.
        buckets: How its codes are filed.
        query: Validated.
        share: The buckets to take into account.
    """
    watch = Stopwatch()
    wanted = None if query.candidates is None else max(query.candidates, query.k)
    plan = make_plan(store.directory(), buckets, query.code, share, wanted)
    watch.lap("plan")
    candidates = gather(store, plan, query.code, share, wanted)
    watch.lap("gather")
    distances, ids = rerank(store, candidates.rows, query.feature, watch)
    distances += code_share(candidates.hamming, query.code_weight, store.spec.bits)
    best = nearest(distances, ids, query.k)
    hits = [_hit(store, candidates, distances, i) for i in best]
    watch.lap("rerank")
    radius = _radius(plan, candidates, store.spec.bits)
    return Partial(
        hits=hits,
        buckets=int(share.of(plan.keys).sum()),
        radius=radius,
        complete=radius == store.spec.bits,
        candidates=candidates.seen,
        reranked=len(candidates.rows),
        timings_ms=watch.timings_ms,
    )


def make_plan(
    directory: NDArray[Any],
    buckets: Buckets,
    code: NDArray[np.uint8],
    share: Share,
    wanted: int | None,
) -> Plan:
    """Choose buckets, nearest first, until they hold enough images.

    The choice does not depend on the share, except that a share has no use for the buckets of
    others when every image is wanted.

    Args:
        directory: Occupied buckets by key, shape=(M,), dtype=DIRECTORY_ENTRY.
        buckets: How codes are filed.
        code: The query's, shape=(W,), dtype=uint8.
        share: The buckets to take into account.
        wanted: Images to compare by feature, or None for all.
    """
    keys = directory["key"].astype(np.uint32)
    counts = directory["count"].astype(np.int64)
    if wanted is None or counts.sum() <= wanted:
        return Plan(keys[share.of(keys)], np.empty(0, np.int64))
    reach = buckets.reach(code, keys, directory["radius"].astype(np.int64))
    order = np.argsort(reach.order, kind="stable")
    total = np.cumsum(counts[order])
    last = np.searchsorted(total, wanted * buckets.codes_per_candidate)
    left_out = order[last + 1 :]
    return Plan(keys[order[: last + 1]], reach.bounds[left_out][share.of(keys[left_out])])


def gather(
    store: Snapshot, plan: Plan, code: NDArray[np.uint8], share: Share, wanted: int | None
) -> Candidates:
    """Read the codes of the planned buckets, and keep the share's part of the nearest ones.

    Of equally near codes the older images win, so that every share draws the same line.
    """
    keys, entries = store.bucket_codes(plan.keys)
    distances = hamming(code, entries["code"])
    rows = entries["row"].astype(np.int64)
    kept = _nearest_codes(distances, rows, wanted)
    own = share.of(keys)
    dropped = distances[own & ~kept]
    kept &= own
    by_row = np.argsort(rows[kept])
    return Candidates(
        rows=rows[kept][by_row],
        hamming=distances[kept][by_row],
        seen=int(own.sum()),
        nearest_dropped=int(dropped.min()) if len(dropped) else None,
    )


def rerank(
    store: Snapshot, rows: NDArray[np.int64], feature: NDArray[np.float32], watch: Stopwatch
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Compute the distances of a query to stored features.

    Args:
        store: Where the features are.
        rows: shape=(N,), ascending, so that the file is read in order.
        feature: The query's, shape=(D,), dtype=float32.
        watch: Told what was reading and what was computing.

    Returns:
        Distances, shape=(N,), dtype=float32, and ids, shape=(N, 16), dtype=uint8.
    """
    distances = np.empty(len(rows), np.float32)
    ids = np.empty((len(rows), 16), np.uint8)
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        stored = store.features(rows[chunk])
        watch.lap("gather")
        distances[chunk] = feature_distances(feature, stored, store.spec.metric)
        ids[chunk] = stored["id"]
        watch.lap("rerank")
    return distances, ids


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
    feature: NDArray[np.float32], stored: NDArray[Any], metric: str
) -> NDArray[np.float32]:
    """Return the distances of a query to stored features, shape=(N,), dtype=float32."""
    if metric == "cosine":
        return values.cosine_distances(feature, stored["values"], stored["length"])
    return values.l2_distances(feature, stored["values"], stored["scale"])


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
    hits: dict[str, Hit] = {}
    for hit in sorted((h for p in partials for h in p.hits), key=lambda h: (h.distance, h.id)):
        hits.setdefault(hit.id, hit)
    stages = {stage for partial in partials for stage in partial.timings_ms}
    return Partial(
        hits=list(hits.values())[:k],
        buckets=sum(p.buckets for p in partials),
        radius=min((p.radius for p in partials), default=-1),
        complete=bool(partials) and all(p.complete for p in partials),
        candidates=sum(p.candidates for p in partials),
        reranked=sum(p.reranked for p in partials),
        timings_ms={s: max(p.timings_ms.get(s, 0.0) for p in partials) for s in sorted(stages)},
    )


def _nearest_codes(
    distances: NDArray[np.uint16], rows: NDArray[np.int64], wanted: int | None
) -> NDArray[np.bool_]:
    """Mark the `wanted` nearest codes, the older ones first where distances are equal."""
    if wanted is None or len(distances) <= wanted:
        return np.ones(len(distances), np.bool_)
    line = np.partition(distances, wanted - 1)[wanted - 1]
    kept: NDArray[np.bool_] = distances < line
    on_line = np.flatnonzero(distances == line)
    oldest = np.argsort(rows[on_line])[: wanted - int(kept.sum())]
    kept[on_line[oldest]] = True
    return kept


def _radius(plan: Plan, candidates: Candidates, bits: int) -> int:
    """Return the Hamming radius within which the share has compared everything."""
    missed = [int(plan.bounds.min())] if len(plan.bounds) else []
    if candidates.nearest_dropped is not None:
        missed.append(candidates.nearest_dropped)
    return min(missed) - 1 if missed else bits


def _hit(
    store: Snapshot, candidates: Candidates, distances: NDArray[np.float32], i: np.intp
) -> Hit:
    image = store.record(int(candidates.rows[i])).image
    return Hit(
        id=image.id,
        distance=float(distances[i]),
        hamming=int(candidates.hamming[i]),
        sources=image.sources,
        width_px=image.width_px,
        height_px=image.height_px,
        format=image.format,
    )
