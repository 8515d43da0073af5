"""Ways to search, and letting them take turns on the same queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ops.bench.figures import rounded, spread
from ops.bench.search_ask import Asked, Found, Vectors
from ops.bench.search_names import CANDIDATES, RECORDS, WHOLE
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
_FEWEST = 5
MOST_S = 1.5
"""What a way that is only compared with is asked for at most."""


@dataclass
class Way:
    """A way to search.

    Attributes:
        name: Of the way.
        stage: "candidates" or "whole".
        ask: Answers the query of a number.
        told: What else to tell of it, parameters and memory.
        candidates: Images to compare by feature; `None` where that is no part of it.
        most_s: After so many seconds it is asked no more, but a few queries at least; `None`
            asks it every one.
        spent_ms: Time of each query asked, on the clock.
        cpu_ms: Likewise of the processor, which others that want it do not lengthen.
        found: Their answers.
    """

    name: str
    stage: str
    ask: Callable[[int], Found]
    told: dict[str, Any] = field(default_factory=dict)
    candidates: int | None = None
    most_s: float | None = None
    spent_ms: dict[int, float] = field(default_factory=dict)
    cpu_ms: dict[int, float] = field(default_factory=dict)
    found: dict[int, Found] = field(default_factory=dict)

    def weary(self) -> bool:
        """Tell whether it has been asked for long enough."""
        if self.most_s is None or len(self.spent_ms) < _FEWEST:
            return False
        return sum(self.spent_ms.values()) > self.most_s * 1000

    @property
    def ours(self) -> bool:
        """Whether it is not a peer's."""
        return self.name.startswith(OURS)


def take_turns(ways: Sequence[Way], *, queries: int, known: int, rounds: int) -> None:
    """Let every way answer every query once, in turns.

    Before that, the last of the known queries warm up, and the store answers all of them once:
    a process that has searched for a while has the codes in its memory and the pages that it
    needs mapped, and the first search for something takes several times as long. (The stage
    "open" tells how long.) In each round a way answers another part of the queries, and not the
    one that was just answered.

    Args:
        ways: What is measured; they keep their answers.
        queries: How many are asked.
        known: How many there are to ask.
        rounds: Parts of the queries.
    """
    for way in ways:
        _warm_up(way, range(max(0, known - _WARM_UP), known))
        if way.ours:
            _warm_up(way, range(queries))
    for number in range(rounds):
        for place, way in enumerate(ways):
            if not way.weary():
                way.ask(known - 1)  # other ways have had the processor's caches since
            for i in range((number + place) % rounds, queries, rounds):
                if not way.weary():
                    _measure(way, i)


def _warm_up(way: Way, queries: Sequence[int]) -> None:
    begin = time.perf_counter()
    for i in queries:
        way.ask(i)
        if way.most_s is not None and time.perf_counter() - begin > way.most_s / 4:
            return


def _measure(way: Way, i: int) -> None:
    cpu, begin = time.process_time(), time.perf_counter()
    way.found[i] = way.ask(i)
    way.spent_ms[i] = (time.perf_counter() - begin) * 1000
    way.cpu_ms[i] = (time.process_time() - cpu) * 1000


def our_ways(
    shard: Shard, queries: Vectors, *, k: int, efforts: Sequence[int], stages: Sequence[str]
) -> Iterator[Way]:
    """Return the ways of the store; records are read with the default effort only."""
    for effort in efforts:
        ask = Asked(shard, queries, k, candidates_for(effort, k))
        told = {"effort": effort}
        most_s = MOST_S if effort >= MAX_EFFORT else None
        if CANDIDATES in stages and ask.wanted is not None:
            yield Way(OURS, CANDIDATES, ask.candidates, dict(told), ask.wanted)
        if WHOLE in stages:
            yield Way(OURS, WHOLE, ask.whole, dict(told), ask.wanted, most_s)
        if RECORDS in stages and effort == DEFAULT_EFFORT:
            yield Way(OURS, RECORDS, ask.with_records, dict(told), ask.wanted)


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
