"""Chooses how much codes count beside features, by what searches with held-out images find."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.measures import average_precision
from models.evaluation.ranking import QUERIES_AT_ONCE, feature_distances
from models.evaluation.retrieval import Embedded, Rules, rank_by_weights

GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Weights that are tried; of features compared by "l2" times their median distance."""

_MOST_QUERIES, _MOST_STORED = 500, 20_000
_HITS, _CANDIDATES = 1000, 4000


@dataclass(frozen=True)
class Seen:
    """Labelled images as a trained network sees them.

    Attributes:
        known: All images, held-out ones included; features may be mapped from disk.
        learned: Rows of `known` that were learned from, dtype=int64.
        others: The images that hold the held-out ones; may be `known`.
        held_out: Rows of `others`, dtype=int64.
    """

    known: Embedded
    learned: NDArray[np.int64]
    others: Embedded
    held_out: NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """A code weight, and how it was chosen.

    Attributes:
        weight: `Bundle.code_weight`.
        queries: How many held-out images were searched with.
        stored: How many images were searched.
        scores: Each weight with its mean average precision, 0 to 1, of the first 1,000 hits.
    """

    weight: float
    queries: int
    stored: int
    scores: tuple[tuple[float, float], ...]

    @property
    def description(self) -> dict[str, Any]:
        """The choice as JSON has it."""
        return {
            "weight": self.weight,
            "queries": self.queries,
            "database": self.stored,
            "candidates": min(_CANDIDATES, self.stored),
            "hits": min(_HITS, self.stored),
            "tried": [{"weight": weight, "map": score} for weight, score in self.scores],
        }


def choose_code_weight(seen: Seen, *, bits: int, metric: str, seed: int) -> Choice:
    """Try every weight of the grid and take the smallest that is the best, but for chance.

    At most 500 held-out images search at most 20,000 of those that were learned from: 4,000
    candidates by code, ordered by distance of features plus weight times share of differing bits.
    Chance is one standard error of the difference to the best, query by query.

    Args:
        seen: The images.
        bits: B, length of the codes.
        metric: How features are compared, "cosine" or "l2".
        seed: Chooses the images.
    """
    rng = np.random.default_rng(seed)
    queries = seen.others.take(_sample(seen.held_out, _MOST_QUERIES, rng))
    stored = seen.known.take(_sample(seen.learned, _MOST_STORED, rng))
    rules = Rules(
        k=min(_HITS, len(stored)),
        candidates=min(_CANDIDATES, len(stored)),
        bits=bits,
        metric=metric,
    )
    weights = _weights(queries, stored, metric)
    alike = (stored.labels == queries.labels[:, None]).sum(1)
    ranked = rank_by_weights(queries, stored, rules, weights)
    precisions = [average_precision(each.relevant, alike) for each in ranked]
    scores = tuple((w, float(each.mean())) for w, each in zip(weights, precisions, strict=True))
    return Choice(weights[_smallest_best(precisions)], len(queries), len(stored), scores)


def _sample(rows: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Sorted, for the disk's sake."""
    return np.sort(rng.choice(rows, min(most, len(rows)), replace=False))


def _weights(queries: Embedded, stored: Embedded, metric: str) -> list[float]:
    """The grid in the unit of the distances, which only "cosine" fixes."""
    if metric == "cosine":
        return [*GRID]
    distances = feature_distances(queries.features, stored.features, metric=metric)
    unit = float(np.median(distances(slice(0, QUERIES_AT_ONCE)))) or 1.0
    return [float(f"{weight * unit:.3g}") for weight in GRID]


def _smallest_best(precisions: list[NDArray[np.float64]]) -> int:
    best = max(precisions, key=lambda each: float(each.mean()))

    def as_good(each: NDArray[np.float64]) -> bool:
        worse = best - each
        return bool(worse.mean() <= worse.std() / math.sqrt(len(worse)))

    return next(place for place, each in enumerate(precisions) if as_good(each))
