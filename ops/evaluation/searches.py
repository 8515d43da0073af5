"""Searches of a real store, filled with the database: what do its buckets miss, and how fast?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.evaluation.measures import overlap
from models.evaluation.retrieval import Embedded
from models.progress import progress
from store import NewImage, Query, Shard, StoreSpec
from workers.searching import MAX_EFFORT, MIN_EFFORT, candidates_for

DEPTHS = (1, 10, 100)
"""Hits that recall is told for."""

_BATCH = 1000


@dataclass(frozen=True)
class EffortFigures:
    """What a search finds with one effort, on average over the queries.

    Attributes:
        effort: 1 to 10; 10 compares every image.
        candidates: Images compared by feature.
        codes_seen: Codes looked at, in the buckets that were opened.
        buckets: Buckets that were opened.
        recall: Depth -> share of the hits of an exhaustive search that were found.
        precision: Depth -> share of the hits that have the query's class.
        p50_ms: Median time of the search in the store, on one thread.
        p95_ms: 95th percentile.
    """

    effort: int
    candidates: float
    codes_seen: float
    buckets: float
    recall: dict[int, float]
    precision: dict[int, float]
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class _Found:
    rows: NDArray[np.int64]
    spent_ms: float
    candidates: int
    codes_seen: int
    buckets: int


def spec_of(bundle: Bundle) -> StoreSpec:
    """Return the spec of a store for a bundle."""
    return StoreSpec(
        bundle_id=bundle.id,
        bits=bundle.bits,
        dims=bundle.dims,
        metric=bundle.metric,
        centres=bundle.centres,
    )


def search_figures(bundle: Bundle, queries: Embedded, database: Embedded) -> list[EffortFigures]:
    """Search a store in a folder of its own with every effort that leaves something out.

    Args:
        bundle: Says how the store files codes and how a search ranks.
        queries: What is searched for.
        database: What is stored.

    Returns:
        The efforts in ascending order; the last one compares every image.

    Raises:
        StoreError: The store cannot be written.
    """
    depths = [depth for depth in DEPTHS if depth <= len(database)]
    efforts = [
        effort
        for effort in range(MIN_EFFORT, MAX_EFFORT)
        if (candidates_for(effort, depths[-1]) or 0) < len(database)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="lookalike-evaluate-") as folder,
        Shard.open(Path(folder) / "store", spec_of(bundle)) as shard,
        progress(total=(len(efforts) + 1) * len(queries), title="searching", unit="search") as bar,
    ):
        _fill(shard, database)
        found: dict[int, list[_Found]] = {}
        for effort in (*efforts, MAX_EFFORT):
            found[effort] = []
            for each in _searches(shard, bundle, queries, effort, depths[-1]):
                found[effort].append(each)
                bar.update(1)
    labels = database.labels, queries.labels
    truth = found[MAX_EFFORT]
    return [_figures(effort, each, truth, depths, labels) for effort, each in found.items()]


def _fill(shard: Shard, database: Embedded) -> None:
    rows = range(len(database))
    for first in range(0, len(database), _BATCH):
        shard.insert([_image(row, database) for row in rows[first : first + _BATCH]])


def _image(row: int, database: Embedded) -> NewImage:
    # The id is the row, so that of equal distances the first of the database wins here too.
    return NewImage(
        id=f"{row:032x}",
        code=database.codes[row],
        feature=database.features[row],
        source=str(row),
        origin=str(row),
        added_at=0.0,
        width_px=1,
        height_px=1,
        format="JPEG",
        size_bytes=1,
    )


def _searches(
    shard: Shard, bundle: Bundle, queries: Embedded, effort: int, k: int
) -> Iterator[_Found]:
    for code, feature in zip(queries.codes, queries.features, strict=True):
        query = Query(
            code=code,
            feature=feature,
            k=k,
            candidates=candidates_for(effort, k),
            code_weight=bundle.code_weight,
        )
        begin = time.perf_counter()
        answer = shard.search(query)
        spent_ms = (time.perf_counter() - begin) * 1000
        rows = np.array([int(name, 16) for name in answer.names()], np.int64)
        yield _Found(rows, spent_ms, answer.reranked, answer.candidates, answer.buckets)


def _figures(
    effort: int,
    found: Sequence[_Found],
    truth: Sequence[_Found],
    depths: Sequence[int],
    labels: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> EffortFigures:
    of_rows, of_queries = labels
    pairs = list(zip(found, truth, strict=True))
    wanted = list(zip(found, of_queries, strict=True))
    p50_ms, p95_ms = np.percentile([each.spent_ms for each in found], (50, 95))
    return EffortFigures(
        effort=effort,
        candidates=float(np.mean([each.candidates for each in found])),
        codes_seen=float(np.mean([each.codes_seen for each in found])),
        buckets=float(np.mean([each.buckets for each in found])),
        recall={
            depth: float(np.mean([overlap(a.rows[:depth], b.rows[:depth]) for a, b in pairs]))
            for depth in depths
        },
        precision={
            depth: float(np.mean([np.mean(of_rows[a.rows[:depth]] == own) for a, own in wanted]))
            for depth in depths
        },
        p50_ms=float(p50_ms),
        p95_ms=float(p95_ms),
    )
