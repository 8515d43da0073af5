"""How the store stands to each peer at equal recall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ops.bench.figures import rounded
from ops.bench.search_names import CANDIDATES
from ops.bench.search_ways import OURS

_EQUAL = 0.0005  # recalls that differ by less are equal


def compare(told: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each way of ours the peers' times at its recall, and pass everything on."""
    for entry in told:
        if entry["way"] != OURS:
            yield entry
            continue
        against = {name: _against(entry, entries) for name, entries in _peers(told, entry).items()}
        yield {**entry, "against": against} if against else entry


def recall_axis(stage: str) -> str:
    """Return which recall the ways of a stage have in common."""
    return "recall" if stage == CANDIDATES else "recall_of_exhaustive"


def _peers(
    told: Sequence[Mapping[str, Any]], ours: Mapping[str, Any]
) -> dict[str, list[Mapping[str, Any]]]:
    """Return the ways of each peer that were asked for the same."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for entry in told:
        same = entry["stage"] != CANDIDATES or entry["candidates"] == ours["candidates"]
        if entry["way"] != OURS and entry["stage"] == ours["stage"] and same:
            found.setdefault(entry["way"], []).append(entry)
    return found


def _against(ours: Mapping[str, Any], peer: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a peer's time at our recall, and ours over it; none where it finds less at most."""
    by_clock, by_cpu = (_at_equal(ours, peer, each) for each in ("p50_ms", "cpu_p50_ms"))
    return {
        "p50_ms": by_clock and rounded(by_clock),
        "ratio": by_clock and rounded(ours["p50_ms"] / by_clock),
        "cpu_ratio": by_cpu and rounded(ours["cpu_p50_ms"] / by_cpu),
        "most_recall": max(entry[recall_axis(ours["stage"])] for entry in peer),
        "memory_mb": peer[0]["memory_mb"],
    }


def _at_equal(
    ours: Mapping[str, Any], peer: Sequence[Mapping[str, Any]], time: str
) -> float | None:
    """Return a peer's time at our recall, between the two of its settings around it."""
    axis = recall_axis(ours["stage"])
    # Of the settings that find as much only the quickest counts.
    best: list[tuple[float, float]] = []
    for entry in sorted(peer, key=lambda entry: (entry[time], -entry[axis])):
        if not best or entry[axis] > best[-1][0]:
            best.append((entry[axis], entry[time]))
    if best[-1][0] < ours[axis] - _EQUAL:
        return None
    recalls, times = zip(*best, strict=True)
    return float(np.exp(np.interp(ours[axis], recalls, np.log(times))))
