"""Recall on a collection of one's own: what a bucket search finds of what there is to find.

Stored images are the queries, each without itself. The truth is the exhaustive search, and a hit
counts as right when it is no farther away than the last of the true ones: of images that are
equally far any will do. Answers of all shards are merged, and searched one after the other, so a
time is that of one thread; what the queue and the network add is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store import Partial, Query, Shard, merge
from workers.options import DEFAULT_EFFORT, MAX_EFFORT, MIN_EFFORT
from workers.searching import candidates_for

_SEED = 0

EFFORTS = range(MIN_EFFORT, MAX_EFFORT + 1)


@dataclass(frozen=True, kw_only=True)
class AtEffort:
    """What searches with one effort were like.

    Attributes:
        effort: 1 to 10.
        candidates: Images that each shard compares by feature; None is all.
        recall: Share of the true hits that were found.
        worst: The same for the query that fared worst.
        p50_ms: Time of a search in the middle.
        p99_ms: Time that one in a hundred searches takes longer than.
    """

    effort: int
    candidates: int | None
    recall: float
    worst: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class Skew:
    """How unevenly the images of a shard are spread over its buckets.

    Attributes:
        path: Of the shard.
        images: In it.
        centres: Centre codes in use; 0 where a code is its own bucket.
        generation: How often they were retrained.
        buckets: Buckets that hold an image.
        largest: Images in the fullest.
        mean: Images in a bucket on average.
        gini: 0 where all buckets are equally full, towards 1 where one holds nearly all.
        retraining_due: Centre codes that `lookalike store retrain` should learn; 0 where it
            would gain little.
    """

    path: str
    images: int
    centres: int
    generation: int
    buckets: int
    largest: int
    mean: float
    gini: float
    retraining_due: int


@dataclass(frozen=True, kw_only=True)
class RecallReport:
    """Recall against time over efforts.

    Attributes:
        images: In all shards.
        queries: Stored images that were searched for.
        k: Hits of each.
        efforts: From the quickest to the exhaustive search.
        aim: Recall that is asked for.
        effort: The smallest that reaches it.
        default_effort: What a search takes unless it is told otherwise.
        shards: Their buckets.
    """

    images: int
    queries: int
    k: int
    efforts: tuple[AtEffort, ...]
    aim: float
    effort: int
    default_effort: int
    shards: tuple[Skew, ...]


def measure(
    shards: Sequence[Shard],
    *,
    sample: int,
    k: int,
    aim: float,
    seconds: float,
    progress: Callable[[int], None] = lambda _: None,
) -> RecallReport | None:
    """Search for stored images with every effort.

    Args:
        shards: All shards of a collection, open.
        sample: How many queries.
        k: Hits of each.
        aim: Recall that the effort is chosen for.
        seconds: Begin no query after this time; one is searched for in any case.
        progress: Told how many queries are done.

    Returns:
        None where no shard holds two images.
    """
    end = time.monotonic() + seconds
    found: list[list[tuple[float, float]]] = []
    for shard, identity in _drawn(shards, sample):
        if found and time.monotonic() > end:
            break
        vectors = shard.vectors(identity)
        if vectors is not None:
            found.append(_one(shards, vectors, identity, k))
            progress(len(found))
    if not found:
        return None
    efforts = tuple(_summed_up(found, place, k) for place in range(len(EFFORTS)))
    return RecallReport(
        images=sum(shard.count() for shard in shards),
        queries=len(found),
        k=k,
        efforts=efforts,
        aim=aim,
        effort=next(each.effort for each in efforts if each.recall >= aim),
        default_effort=DEFAULT_EFFORT,
        shards=tuple(skew_of(shard) for shard in shards),
    )


def skew_of(shard: Shard) -> Skew:
    """Return how the images of a shard are spread over its buckets."""
    stats, sizes = shard.stats(), shard.bucket_sizes()
    return Skew(
        path=stats.path,
        images=stats.images,
        centres=stats.centres,
        generation=stats.generation,
        buckets=len(sizes),
        largest=int(sizes.max(initial=0)),
        mean=round(float(sizes.mean()), 1) if len(sizes) else 0.0,
        gini=round(gini(sizes), 3),
        retraining_due=shard.retraining_due(),
    )


def gini(sizes: NDArray[np.int64]) -> float:
    """Return the Gini coefficient of numbers, shape=(M,): half their mean relative difference."""
    if not sizes.sum():
        return 0.0
    rising, count = np.sort(sizes).astype(np.float64), len(sizes)
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float(weights @ rising / (count * rising.sum()))


def _drawn(shards: Sequence[Shard], sample: int) -> list[tuple[Shard, str]]:
    """Draw stored images, from each shard as many as it holds of all, in a random order."""
    counts = np.array([shard.count() for shard in shards])
    if counts.sum() < 2:
        return []
    rng = np.random.default_rng(_SEED)
    own = rng.multivariate_hypergeometric(counts, min(sample, int(counts.sum())))
    drawn = [
        (shard, identity)
        for shard, count in zip(shards, own.tolist(), strict=True)
        for identity in shard.sample_ids(count, _SEED)
    ]
    return [drawn[place] for place in rng.permutation(len(drawn))]


def _one(
    shards: Sequence[Shard],
    vectors: tuple[NDArray[np.uint8], NDArray[np.float32]],
    identity: str,
    k: int,
) -> list[tuple[float, float]]:
    """Return recall and time in ms of one query at every effort."""
    # The exhaustive search comes first, so that all find the features in memory if they fit.
    searched = [_search(shards, vectors, identity, k, effort) for effort in reversed(EFFORTS)]
    truth, _ = searched[0]
    return [(_recall(hits, truth), ms) for hits, ms in reversed(searched)]


def _search(
    shards: Sequence[Shard],
    vectors: tuple[NDArray[np.uint8], NDArray[np.float32]],
    identity: str,
    k: int,
    effort: int,
) -> tuple[NDArray[np.float32], float]:
    """Return the distances of the hits but the query itself, and the time in ms."""
    code, feature = vectors
    query = Query(code=code, feature=feature, k=k + 1, candidates=candidates_for(effort, k))
    begin = time.perf_counter()
    answer: Partial = merge([shard.search(query) for shard in shards], k + 1)
    spent_ms = (time.perf_counter() - begin) * 1000
    others = np.array([name != identity for name in answer.names()], np.bool_)
    return answer.distances[others][:k], spent_ms


def _recall(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    if not len(truth):
        return 1.0
    return min(1.0, float((found <= truth[-1]).sum()) / len(truth))


def _summed_up(found: Sequence[Sequence[tuple[float, float]]], place: int, k: int) -> AtEffort:
    recalls, spent_ms = np.array([query[place] for query in found]).T
    effort = EFFORTS[place]
    return AtEffort(
        effort=effort,
        candidates=candidates_for(effort, k),
        recall=round(float(recalls.mean()), 4),
        worst=round(float(recalls.min()), 4),
        p50_ms=round(float(np.percentile(spent_ms, 50)), 3),
        p99_ms=round(float(np.percentile(spent_ms, 99)), 3),
    )
