"""What the order of equal distances does to average precision.

Codes of B bits have B + 1 different distances, so a database falls into a few large groups that a
ranking by code cannot tell apart. The mean over all orders of the equals has a closed form
(McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the
Presence of Tied Scores", ECIR 2008).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Groups:
    """For each query, the groups of equally distant images, nearest group first.

    Attributes:
        sizes: Images in each group, shape=(Q, G), dtype=int64; may be 0.
        relevant: How many of them are relevant, shape=(Q, G), dtype=int64.
    """

    sizes: NDArray[np.int64]
    relevant: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Put the groups of different queries together."""
        sizes = np.concatenate([part.sizes for part in parts])
        return cls(sizes, np.concatenate([part.relevant for part in parts]))

    def ordered(self, *, relevant_first: bool) -> "Groups":
        """Split every group into its relevant and its other images: nothing is left to chance."""
        others = self.sizes - self.relevant
        none = np.zeros_like(others)
        first, second = (self.relevant, others) if relevant_first else (others, self.relevant)
        hits = (first, none) if relevant_first else (none, second)
        return Groups(_alternate(first, second), _alternate(*hits))


def _alternate(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([first, second], axis=2).reshape(len(first), -1)


def count_groups(distances: NDArray[np.uint16], same: NDArray[np.bool_], *, bits: int) -> Groups:
    """Count the images, and the relevant ones, at each Hamming distance from 0 to B.

    Args:
        distances: shape=(Q, N), dtype=uint16, 0 to B.
        same: shape=(Q, N), dtype=bool; whether an image is relevant to a query.
        bits: B.
    """
    queries, levels = len(distances), bits + 1
    keys = distances + (np.arange(queries, dtype=np.int64) * levels)[:, None]
    sizes = np.bincount(keys.ravel(), minlength=queries * levels)
    relevant = np.bincount(keys[same], minlength=queries * levels)
    return Groups(sizes.reshape(queries, levels), relevant.reshape(queries, levels))


def expected_precision(groups: Groups, k: int, *, of_all: bool) -> NDArray[np.float64]:
    """Return the average precision at K, as a mean over all orders of equal distances.

    Args:
        groups: Of Q queries.
        k: K, at most the images of a query.
        of_all: Divide by min(R, K) rather than by the relevant hits among the K; see
            `models.evaluation.measures`.

    Returns:
        shape=(Q,), dtype=float64.
    """
    before = np.minimum(groups.sizes.cumsum(1) - groups.sizes, k)
    taken = np.minimum(groups.sizes, k - before)
    hits_before = groups.relevant.cumsum(1) - groups.relevant
    if of_all:
        share = groups.relevant / np.maximum(groups.sizes, 1)
        sums = _sum(before, taken, hits_before, share, _rate(groups.relevant, groups.sizes))
        possible = np.minimum(groups.relevant.sum(1), k)
        return np.asarray(sums.sum(1) / np.maximum(possible, 1))
    return _of_found(groups, before, taken, hits_before)


def _sum(
    before: NDArray[np.int64],
    taken: NDArray[np.int64],
    hits_before: NDArray[np.int64],
    share: NDArray[np.float64],
    rate: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Expected sum of the precisions at the relevant ranks of a group.

    At the i-th place of a group, rank `before` + i, an image is relevant with probability
    `share`; then `hits_before` + 1 + (i - 1) `rate` of the ranks so far are expected to be.
    """
    harmonic = np.concatenate([[0.0], (1 / np.arange(1, (before + taken).max() + 1)).cumsum()])
    inverse = harmonic[before + taken] - harmonic[before]
    # (i - 1) / (before + i) = 1 - (before + 1) / (before + i)
    places = taken - (before + 1) * inverse
    return np.asarray(share * ((hits_before + 1) * inverse + rate * places))


def _rate(relevant: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chance that another image of the group is relevant, given one that is."""
    return np.asarray((relevant - 1) / np.maximum(size - 1, 1))


def _of_found(
    groups: Groups,
    before: NDArray[np.int64],
    taken: NDArray[np.int64],
    hits_before: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Expected ratio: only the group that K cuts leaves the number of relevant hits open."""
    share = groups.relevant / np.maximum(groups.sizes, 1)
    sums = _sum(before, taken, hits_before, share, _rate(groups.relevant, groups.sizes))
    last = (taken > 0).cumsum(1).argmax(1)
    rows = np.arange(len(last))
    sums[rows, last] = 0
    logs = _log_factorials(int(groups.sizes.max()))
    arrays = (groups.sizes, groups.relevant, before, taken, hits_before)
    ends = np.stack([array[rows, last] for array in arrays], axis=1)
    pairs = zip(sums.sum(1), ends, strict=True)
    return np.array([_with_last_group(done, end, logs) for done, end in pairs])


def _with_last_group(
    sum_before: float, end: NDArray[np.int64], logs: NDArray[np.float64]
) -> float:
    """Mean over how many relevant images of the last group fall before the cut."""
    size, relevant, before, taken, hits_before = map(int, end)
    least, most = max(0, taken - (size - relevant)), min(taken, relevant)
    hits = np.arange(least, most + 1)
    chances = np.exp(
        _log_choose(relevant, hits, logs)
        + _log_choose(size - relevant, taken - hits, logs)
        - _log_choose(size, np.array([taken]), logs)
    )
    sums = sum_before + _sum(
        np.full_like(hits, before),
        np.full_like(hits, taken),
        np.full_like(hits, hits_before),
        hits / max(taken, 1),
        _rate(hits, np.full_like(hits, taken)),
    )
    return float((chances * sums / np.maximum(hits_before + hits, 1)).sum())


def _log_factorials(most: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.log(np.arange(1, most + 1)).cumsum()])


def _log_choose(
    total: int, chosen: NDArray[np.int64], logs: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(logs[total] - logs[chosen] - logs[total - chosen])
