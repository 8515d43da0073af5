"""The store alone: plan, probe and merge, in one process, on made-up images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ops.bench.figures import median, rounded, spread
from ops.bench.output import put
from ops.bench.stack import scratch
from ops.bench.synthetic import World
from ops.cli.console import Console
from store import Partial, Query, Shard, merge
from workers.searching import MAX_EFFORT, candidates_for

_BATCH = 1_000
_SEED = 20


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        images: How many are stored.
        bits: Lengths of the codes; each gets a store of its own.
        dims: Length of the features.
        queries: Searches of each way.
        k: Hits.
        efforts: Efforts to try; the exhaustive search comes by itself.
        groups: Groups of buckets that a search is split into.
    """

    images: int
    bits: Sequence[int]
    dims: int
    queries: int
    k: int
    efforts: Sequence[int]
    groups: int


@dataclass(frozen=True)
class _Way:
    effort: int
    groups: int

    @property
    def name(self) -> str:
        effort = "exhaustive" if self.effort >= MAX_EFFORT else f"effort {self.effort}"
        return effort if self.groups == 1 else f"{effort}, {self.groups} groups"


def bench_search(plan: Plan, console: Console) -> None:
    """Fill a store for every length of code, search it every way, and put out the figures."""
    with scratch() as folder:
        for bits in plan.bits:
            _bench_bits(plan, bits, folder / str(bits), console)


def _bench_bits(plan: Plan, bits: int, folder: Path, console: Console) -> None:
    rng = np.random.default_rng(_SEED)
    world = World.make(rng, images=plan.images, dims=plan.dims, bits=bits)
    with Shard.open(folder, world.spec(rng, images=plan.images)) as shard:
        console.note(f"Storing {plan.images:,} images with codes of {bits} bits.")
        stored_per_s = _fill(shard, world, rng, plan.images)
        facts = {
            "bits": bits,
            "images": plan.images,
            "dims": plan.dims,
            "k": plan.k,
            "stored_per_s": rounded(stored_per_s),
            "buckets": shard.stats().buckets,
            "bytes_per_image": rounded(shard.stats().used_bytes / plan.images),
        }
        features = world.features(rng, plan.queries)
        queries = list(zip(world.codes(features), features, strict=True))
        truth = [ids for ids, _, _ in _searches(shard, queries, plan.k, _Way(MAX_EFFORT, 1))]
        for way in _ways(plan):
            found = list(_searches(shard, queries, plan.k, way))
            put(console, "search", facts | {"way": way.name} | _figures(found, truth))


def _ways(plan: Plan) -> Iterator[_Way]:
    for effort in (*plan.efforts, MAX_EFFORT):
        for groups in sorted({1, plan.groups}):
            yield _Way(effort, groups)


def _fill(shard: Shard, world: World, rng: np.random.Generator, images: int) -> float:
    """Store images and return how many in a second, leaving out the making of them."""
    spent = 0.0
    for batch in world.batches(rng, images=images, batch=_BATCH):
        begin = time.perf_counter()
        shard.insert(batch)
        spent += time.perf_counter() - begin
    return images / spent


def _searches(
    shard: Shard, queries: Sequence[tuple[np.ndarray, np.ndarray]], k: int, way: _Way
) -> Iterator[tuple[set[str], float, Partial]]:
    """Search, and yield the ids found, the milliseconds, and the merged answer."""
    for code, feature in queries:
        query = Query(code=code, feature=feature, k=k, candidates=candidates_for(way.effort, k))
        begin = time.perf_counter()
        answer = _answer(shard, query, way.groups)
        spent_ms = (time.perf_counter() - begin) * 1000
        yield {hit.id for hit in answer.hits}, spent_ms, answer


def _answer(shard: Shard, query: Query, groups: int) -> Partial:
    partials = [shard.search(query, group=group, groups=groups) for group in range(groups)]
    return merge(partials, query.k)


def _figures(
    found: Sequence[tuple[set[str], float, Partial]], truth: Sequence[set[str]]
) -> dict[str, object]:
    recalls = [len(ids & true) / len(true) for (ids, _, _), true in zip(found, truth, strict=True)]
    answers = [answer for _, _, answer in found]
    spent = spread([spent_ms for _, spent_ms, _ in found], 50, 99)
    stages = sorted({stage for answer in answers for stage in answer.timings_ms})
    return {
        **{f"{name}_ms": value for name, value in spent.items()},
        "recall": rounded(float(np.mean(recalls))),
        "queries": len(found),
        "candidates": median([answer.candidates for answer in answers]),
        "reranked": median([answer.reranked for answer in answers]),
        "radius": median([answer.radius for answer in answers]),
        "stages_ms": {
            stage: median([answer.timings_ms.get(stage, 0.0) for answer in answers])
            for stage in stages
        },
    }
