"""Rankings of a labelled database for labelled queries, every way that a search could rank."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evaluation.ranking import as_words, blocks, feature_distances, hamming, nearest
from models.evaluation.ties import Groups, count_groups
from models.progress import progress

TOP = 10
"""Hits of each query whose rows are kept."""


@dataclass(frozen=True)
class Embedded:
    """Labelled images as a network sees them.

    Attributes:
        features: shape=(N, D), dtype=float32.
        codes: shape=(N, ceil(B/8)), dtype=uint8, packed.
        labels: shape=(N,), dtype=int64; equal numbers are equal classes.
    """

    features: NDArray[np.float32]
    codes: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Embedded":
        """Return some of the images, in the order of `rows`."""
        return Embedded(self.features[rows], self.codes[rows], self.labels[rows])


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a ranking is made.

    Attributes:
        k: K, the hits that count.
        candidates: How many of the nearest codes are compared by feature, at least K; as many as
            there are where the database is smaller.
        bits: B.
        metric: "cosine" or "l2".
        code_weight: What the share of differing bits adds to the distance of features.
    """

    k: int
    candidates: int
    bits: int
    metric: str
    code_weight: float = 0.0


@dataclass(frozen=True)
class Ranked:
    """Rankings of Q queries.

    Attributes:
        relevant: shape=(Q, K), dtype=bool; whether the hit at each rank has the query's class.
        top: Rows of the first hits, shape=(Q, min(K, TOP)), dtype=int64.
    """

    relevant: NDArray[np.bool_]
    top: NDArray[np.int64]


def rank_by_code(
    queries: Embedded, database: Embedded, rules: Rules, *, name: str = "codes"
) -> tuple[Ranked, Groups]:
    """Rank by Hamming distance, ties in the database's order.

    Args:
        queries: Q images.
        database: N images.
        rules: K and B are taken into account.
        name: What the progress bar says.

    Returns:
        The rankings, and the sizes of the groups of equal distances.
    """
    ours, theirs = as_words(queries.codes), as_words(database.codes)
    found, groups = [], []
    for part in _progress(len(queries), name):
        distances = hamming(ours[part], theirs)
        same = queries.labels[part, None] == database.labels
        groups.append(count_groups(distances, same, bits=rules.bits))
        found.append(_ranked(nearest(distances, rules.k), same))
    return _joined(found), Groups.join(groups)


def rank_by_feature(
    queries: Embedded, database: Embedded, rules: Rules, *, name: str = "features"
) -> tuple[Ranked, Ranked]:
    """Rank by feature: among every image, and among the images with the nearest codes.

    Args:
        queries: Q images, compared as they are.
        database: N images.
        rules: The settings of the second ranking; the first knows K and the metric alone.
        name: What the progress bar says.

    Returns:
        Every image compared by feature; the candidates compared as a search does it.
    """
    ours, theirs = as_words(queries.codes), as_words(database.codes)
    distances = feature_distances(queries.features, database.features, metric=rules.metric)
    everything, candidates = [], []
    for part in _progress(len(queries), name):
        same = queries.labels[part, None] == database.labels
        by_feature = distances(part)
        everything.append(_ranked(nearest(by_feature, rules.k), same))
        near = _Candidates.of(by_feature, hamming(ours[part], theirs), rules.candidates)
        candidates.append(_ranked(near.ranked(rules, rules.code_weight), same))
    return _joined(everything), _joined(candidates)


def rank_by_weights(
    queries: Embedded, database: Embedded, rules: Rules, weights: Sequence[float]
) -> list[Ranked]:
    """Rank the images with the nearest codes with one code weight after the other.

    Args:
        queries: Q images, compared as they are.
        database: N images.
        rules: The settings but for the code weight.
        weights: Code weights.

    Returns:
        The rankings of each weight.
    """
    ours, theirs = as_words(queries.codes), as_words(database.codes)
    distances = feature_distances(queries.features, database.features, metric=rules.metric)
    found: list[list[Ranked]] = [[] for _ in weights]
    for part in _progress(len(queries), "features and codes"):
        same = queries.labels[part, None] == database.labels
        near = _Candidates.of(distances(part), hamming(ours[part], theirs), rules.candidates)
        for ranked, weight in zip(found, weights, strict=True):
            ranked.append(_ranked(near.ranked(rules, weight), same))
    return [_joined(each) for each in found]


@dataclass(frozen=True)
class _Candidates:
    """The C nearest by code of each query, in the database's order.

    Attributes:
        rows: shape=(part, C), dtype=int64.
        apart: Distances of their features, shape=(part, C), dtype=float32.
        differing: Differing bits, shape=(part, C), dtype=float32.
    """

    rows: NDArray[np.int64]
    apart: NDArray[np.float32]
    differing: NDArray[np.float32]

    @classmethod
    def of(
        cls, by_feature: NDArray[np.float32], by_code: NDArray[np.uint16], wanted: int
    ) -> "_Candidates":
        # Ascending, so that the database's order decides between equals.
        rows = np.sort(nearest(by_code, min(wanted, by_code.shape[1])), axis=1)
        differing = np.take_along_axis(by_code, rows, axis=1).astype(np.float32)
        return cls(rows, np.take_along_axis(by_feature, rows, axis=1), differing)

    def ranked(self, rules: Rules, weight: float) -> NDArray[np.int64]:
        """Rows of the K nearest, shape=(part, K)."""
        distances = self.apart + np.float32(weight / rules.bits) * self.differing
        return np.take_along_axis(self.rows, nearest(distances, rules.k), axis=1)


def _ranked(rows: NDArray[np.int64], same: NDArray[np.bool_]) -> Ranked:
    return Ranked(np.take_along_axis(same, rows, axis=1), rows[:, :TOP])


def _joined(parts: list[Ranked]) -> Ranked:
    return Ranked(
        np.concatenate([part.relevant for part in parts]),
        np.concatenate([part.top for part in parts]),
    )


def _progress(queries: int, name: str) -> Iterator[slice]:
    with progress(total=queries, title=f"ranking by {name}", unit="query") as bar:
        for part in blocks(queries):
            yield part
            bar.update(min(part.stop, queries) - part.start)
