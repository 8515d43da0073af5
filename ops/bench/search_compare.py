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
        against = {name: _against(entry, points) for name, points in _peers(told, entry).items()}
        yield {**entry, "against": against} if against else entry


def recall_axis(stage: str) -> str:
    """Return which recall the ways of a stage have in common."""
    return "recall" if stage == CANDIDATES else "recall_of_exhaustive"


def _peers(
    told: Sequence[Mapping[str, Any]], ours: Mapping[str, Any]
) -> dict[str, list[tuple[float, float, float]]]:
    """Return recall, time and memory of the peers that were asked for the same."""
    axis = recall_axis(ours["stage"])
    found: dict[str, list[tuple[float, float, float]]] = {}
    for entry in told:
        same = entry["stage"] != CANDIDATES or entry["candidates"] == ours["candidates"]
        if entry["way"] != OURS and entry["stage"] == ours["stage"] and same:
            point = (entry[axis], entry["p50_ms"], entry["memory_mb"])
            found.setdefault(entry["way"], []).append(point)
    return found


def _against(
    ours: Mapping[str, Any], points: Sequence[tuple[float, float, float]]
) -> dict[str, Any]:
    """Return a peer's time at our recall, between the two settings around it."""
    recall = ours[recall_axis(ours["stage"])]
    memory = points[0][2]
    # The quickest way to have at least each recall.
    best: list[tuple[float, float]] = []
    for reached, spent, _ in sorted(points, key=lambda point: (point[1], -point[0])):
        if not best or reached > best[-1][0]:
            best.append((reached, spent))
    if best[-1][0] < recall - _EQUAL:
        most = {"most_recall": best[-1][0], "its_p50_ms": best[-1][1]}
        return {"p50_ms": None, "ratio": None, "memory_mb": memory, **most}
    recalls, times = zip(*best, strict=True)
    at_equal = float(np.exp(np.interp(recall, recalls, np.log(times))))
    return {
        "p50_ms": rounded(at_equal),
        "ratio": rounded(ours["p50_ms"] / at_equal),
        "memory_mb": memory,
    }
