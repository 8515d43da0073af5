"""What a search should find: the nearest features, the nearest codes, and both after another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from store import hamming

if TYPE_CHECKING:
    from ops.bench.search_build import Collection

DEPTH = 100
"""The hits that are compared with an exhaustive search of the features."""

_MOST_JUDGED = 100
_MOST_DISTANCES = 250_000_000  # a gigabyte is kept of them

_TINY = np.float32(1e-30)


def judged(n: int, queries: int) -> int:
    """Return for how many of the first queries the truth of n images is kept that takes long."""
    return max(1, min(queries, _MOST_JUDGED, _MOST_DISTANCES // n))


class FeatureTruth:
    """Every distance of some queries, found while features pass by once.

    Args:
        folder: Where to write it.
        queries: shape=(Q, D), dtype=float32; the first ones count, see `judged`.
        n: Features that will pass.
    """

    def __init__(self, folder: Path, queries: NDArray[np.float32], n: int) -> None:
        self._folder = folder
        self._queries = _directions(queries[: judged(n, len(queries))])
        self._rows = np.empty((len(self._queries), 0), np.int64)
        self._cosines = np.empty((len(self._queries), 0), np.float32)
        shape = (len(self._queries), n)
        path = folder / "distances.npy"
        self._distances = np.lib.format.open_memmap(path, mode="w+", dtype="f4", shape=shape)

    def add(self, rows: NDArray[Any], features: NDArray[np.float32]) -> None:
        """Look at more features, shape=(N, D), of these rows, shape=(N,)."""
        cosines = np.hstack([self._cosines, _cosines(self._queries, features)])
        known = np.hstack([self._rows, np.broadcast_to(rows, (len(cosines), len(rows)))])
        kept = np.argpartition(-cosines, min(DEPTH, cosines.shape[1]) - 1, axis=1)[:, :DEPTH]
        self._cosines = np.take_along_axis(cosines, kept, 1)
        self._rows = np.take_along_axis(known, kept, 1)
        self._distances[:, rows] = 1 - _cosines(self._queries, _rounded(features))

    def finish(self) -> None:
        """Write what was found."""
        order = np.argsort(-self._cosines, axis=1)
        np.save(self._folder / "nearest.npy", np.take_along_axis(self._rows, order, 1))
        self._distances.flush()


class Truth:
    """What is true of a collection and its queries.

    Args:
        collection: What is searched.
        queries: How many of its queries are asked.
        candidates: The most candidates that will be asked about.
    """

    def __init__(self, collection: Collection, queries: int, candidates: int) -> None:
        self._collection = collection
        self._queries = queries
        self._candidates = min(candidates, collection.source.n)
        folder = collection.folder
        self._nearest: NDArray[np.int64] = np.load(folder / "nearest.npy")
        self._distances: NDArray[np.float32] = np.load(folder / "distances.npy", mmap_mode="r")
        self._counts = self._kept(f"counts-{queries}.npy", self._count)
        self._order = self._kept(f"order-{queries}-{self._candidates}.npy", self._sort)

    def share_of_codes(self, query: int, found: NDArray[Any], candidates: int) -> float:
        """Return how many of the nearest codes were found.

        Every code as near as the last of the truly nearest counts: which of equally near ones
        are found makes no difference.

        Args:
            query: Which one was asked.
            found: Hamming distances of what was found.
            candidates: How many should have been found.
        """
        wanted = min(candidates, self._collection.source.n)
        line = np.searchsorted(self._counts[query], wanted)
        return min(int(np.count_nonzero(found <= line)), wanted) / wanted

    def share_of_scan(
        self, query: int, found: NDArray[Any], candidates: int, k: int
    ) -> float | None:
        """Return how many of the k hits were found that comparing all codes leads to.

        That is, the features of the `candidates` nearest codes compared. Which of the codes at
        the same distance as the last are among them makes no difference, as long as the feature
        is as near.
        """
        if query >= len(self._order):
            return None
        rows = self._order[query, :candidates].astype(np.int64)
        distances = self._distances[query]
        best = rows[np.argpartition(distances[rows], min(k, len(rows)) - 1)[:k]]
        code, codes = self._collection.queries.codes[query], self._collection.codes
        on_line = hamming(code, codes[found]) == hamming(code, codes[rows[-1:]])
        as_near = on_line & (distances[found] <= distances[best].max())
        right = np.count_nonzero(np.isin(found, best) | as_near)
        return min(int(right), len(best)) / len(best)

    def share_of_exhaustive(self, query: int, found: NDArray[Any], k: int) -> float | None:
        """Return how many of the nearest features are among the first hits, 100 of each or k."""
        if query >= len(self._nearest):
            return None
        true = self._nearest[query][:k]
        return len(np.intersect1d(true, found[: len(true)])) / len(true)

    def _count(self) -> NDArray[np.int64]:
        """Count the codes within each distance of a query, shape=(Q, B + 1), dtype=int64."""
        length = self._collection.source.bits + 1
        counts = [np.bincount(self._hamming(i), minlength=length) for i in range(self._queries)]
        return np.cumsum(counts, axis=1)

    def _sort(self) -> NDArray[np.uint32]:
        """Return rows by code, nearest first and older first, shape=(Q, C), dtype=uint32."""
        count = min(self._queries, len(self._nearest))
        orders = [np.argsort(self._hamming(i), kind="stable") for i in range(count)]
        return np.stack([order[: self._candidates].astype(np.uint32) for order in orders])

    def _hamming(self, query: int) -> NDArray[np.uint16]:
        return hamming(self._collection.queries.codes[query], self._collection.codes)

    def _kept(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        path = self._collection.folder / name
        if not path.exists():
            making = path.with_name(f".{os.getpid()}-{name}")
            np.save(making, make())
            making.rename(path)
        return np.asarray(np.load(path))


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: NDArray[np.float32] = vectors / np.maximum(lengths, _TINY)
    return directions


def _cosines(
    directions: NDArray[np.float32], features: NDArray[np.float32]
) -> NDArray[np.float32]:
    lengths = np.sqrt(np.vecdot(features, features))
    cosines: NDArray[np.float32] = directions @ features.T / np.maximum(lengths, _TINY)
    return cosines


def _rounded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features as a store has them, rounded to signed bytes, up to a scale."""
    largest = np.maximum(features.max(axis=1), -features.min(axis=1))
    values: NDArray[np.float32] = (
        features * (np.float32(127) / np.maximum(largest, _TINY))[:, None]
    )
    np.rint(values, out=values)
    return values
