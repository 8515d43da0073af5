"""Ways to search, and letting them take turns on the same queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ops.bench.figures import rounded, spread
from ops.bench.search_ask import Asked, Found, Vectors
from ops.bench.search_names import CANDIDATES, WHOLE
from ops.bench.search_truth import DEPTH, Truth
from store import Shard
from workers.searching import DEFAULT_EFFORT, MAX_EFFORT, candidates_for

OURS = "lookalike"

RECALL_OF = {
    CANDIDATES: "the nearest codes",
    WHOLE: "all codes scanned, as many candidates, the same re-ranking",
    "peer": f"exhaustive search of the features, {DEPTH} hits",
}

_WARM_UP = 20
_SETTLE = 2  # other ways have had the processor's caches since


@dataclass
class Way:
    """A way to search.

    Attributes:
        name: Of the way.
        stage: "candidates" or "whole".
        ask: Answers the query of a number.
        told: What else to tell of it, parameters and memory.
        candidates: Images to compare by feature; `None` where that is no part of it.
        slow: Whether it takes so long that few queries must do.
        spent_ms: Time of each query asked, on the clock.
        cpu_ms: Likewise of the processor, which others that want it do not lengthen.
        found: Their answers.
    """

    name: str
    stage: str
    ask: Callable[[int], Found]
    told: dict[str, Any] = field(default_factory=dict)
    candidates: int | None = None
    slow: bool = False
    spent_ms: dict[int, float] = field(default_factory=dict)
    cpu_ms: dict[int, float] = field(default_factory=dict)
    found: dict[int, Found] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it is not a peer's."""
        return self.name.startswith(OURS)


def take_turns(ways: Sequence[Way], *, queries: int, known: int, rounds: int) -> None:
    """Let every way answer every query once, in turns.

    In each round a way answers another part of the queries, and not the part that another way
    has just answered, so that none always comes first to pages that no process has touched. The
    last of the known queries warm up.

    Args:
        ways: What is measured; they keep their answers.
        queries: How many are asked.
        known: How many there are to ask.
        rounds: Parts of the queries.
    """
    for way in ways:
        for i in range(max(0, known - (_SETTLE if way.slow else _WARM_UP)), known):
            way.ask(i)
    for number in range(rounds):
        for place, way in enumerate(ways):
            way.ask(known - 1)
            for i in range((number + place) % rounds, _asked(way, queries), rounds):
                cpu, begin = time.process_time(), time.perf_counter()
                way.found[i] = way.ask(i)
                way.spent_ms[i] = (time.perf_counter() - begin) * 1000
                way.cpu_ms[i] = (time.process_time() - cpu) * 1000


def _asked(way: Way, queries: int) -> int:
    return min(queries, 10) if way.slow else queries


def our_ways(
    shard: Shard, queries: Vectors, *, k: int, efforts: Sequence[int], stages: Sequence[str]
) -> Iterator[Way]:
    """Return the ways of the store."""
    for effort in efforts:
        ask = Asked(shard, queries, k, candidates_for(effort, k))
        told = {"effort": effort}
        slow = effort >= MAX_EFFORT
        if CANDIDATES in stages and not slow:
            yield Way(OURS, CANDIDATES, ask.candidates, dict(told), ask.wanted)
        if WHOLE in stages:
            yield Way(OURS, WHOLE, ask.whole, dict(told), ask.wanted, slow=slow)
            if effort == DEFAULT_EFFORT:
                records = told | {"records": True}
                yield Way(OURS, WHOLE, ask.with_records, records, ask.wanted)


def figures(way: Way, truth: Truth, k: int) -> dict[str, Any]:
    """Return what was measured of a way."""
    spent = spread(list(way.spent_ms.values()), 50, 99)
    told = {
        "way": way.name,
        "stage": way.stage,
        **{f"{name}_ms": value for name, value in spent.items()},
        "cpu_p50_ms": spread(list(way.cpu_ms.values()), 50)["p50"],
        **_recalls(way, truth, k),
        "queries": len(way.spent_ms),
        "candidates": way.candidates,
        **way.told,
    }
    return told | _stages(way)


def _recalls(way: Way, truth: Truth, k: int) -> dict[str, Any]:
    if way.stage == CANDIDATES:
        shares = [
            truth.share_of_codes(i, found.hamming, way.candidates)
            for i, found in way.found.items()
            if found.hamming is not None and way.candidates is not None
        ]
        return {"recall": rounded(float(np.mean(shares))), "recall_of": RECALL_OF[CANDIDATES]}
    rows = {i: found.rows for i, found in way.found.items() if found.rows is not None}
    exhaustive = _mean([truth.share_of_exhaustive(i, found, k) for i, found in rows.items()])
    if not way.ours or way.candidates is None:
        recall, of = exhaustive, RECALL_OF["peer"]
    else:
        wanted = way.candidates
        recall = _mean([truth.share_of_scan(i, found, wanted, k) for i, found in rows.items()])
        of = RECALL_OF[WHOLE]
    return {"recall": recall, "recall_of": of, "recall_of_exhaustive": exhaustive}


def _mean(shares: Sequence[float | None]) -> float:
    return rounded(float(np.mean([share for share in shares if share is not None])))


def _stages(way: Way) -> dict[str, Any]:
    timings = [found.stages_ms for found in way.found.values() if found.stages_ms is not None]
    if not timings:
        return {}
    names = dict.fromkeys(name for timing in timings for name in timing)
    medians = {name: np.median([timing.get(name, 0.0) for timing in timings]) for name in names}
    return {"stages_ms": {name: rounded(float(value)) for name, value in medians.items()}}
