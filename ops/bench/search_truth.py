"""What a search should find: the nearest features, the nearest codes, and both after another."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from store import hamming

if TYPE_CHECKING:
    from ops.bench.search_build import Collection

DEPTH = 100
"""The hits that are compared with an exhaustive search of the features."""

JUDGED = 100
"""The first queries, for which the truth is known that takes long to find."""


class Nearest:
    """The nearest features of some queries, found while features pass by once.

    Args:
        queries: shape=(Q, D), dtype=float32; the first `JUDGED` count.
    """

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._queries = _directions(queries[:JUDGED])
        self._rows = np.empty((len(self._queries), 0), np.int64)
        self._cosines = np.empty((len(self._queries), 0), np.float32)

    def add(self, rows: NDArray[Any], features: NDArray[np.float32]) -> None:
        """Look at more features, shape=(N, D), of these rows, shape=(N,)."""
        lengths = np.maximum(np.linalg.norm(features, axis=1), np.float32(1e-30))
        cosines = np.hstack([self._cosines, self._queries @ features.T / lengths])
        known = np.hstack([self._rows, np.broadcast_to(rows, (len(cosines), len(rows)))])
        kept = np.argpartition(-cosines, min(DEPTH, cosines.shape[1]) - 1, axis=1)[:, :DEPTH]
        self._cosines = np.take_along_axis(cosines, kept, 1)
        self._rows = np.take_along_axis(known, kept, 1)

    def rows(self) -> NDArray[np.int64]:
        """Return the rows of the nearest, nearest first, shape=(Q, up to 100), dtype=int64."""
        return np.take_along_axis(self._rows, np.argsort(-self._cosines, axis=1), 1)


class Truth:
    """What is true of a collection and its queries; what takes long is kept beside it.

    Args:
        collection: What is searched.
        queries: How many of its queries are asked.
    """

    def __init__(self, collection: Collection, queries: int) -> None:
        self._collection = collection
        self.queries = queries

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

        That is, the features of the `candidates` nearest codes, older images first, compared.
        """
        if query >= JUDGED:
            return None
        rows, distances = self._scan(candidates)
        best = np.argpartition(distances[query], min(k, candidates) - 1)[:k]
        return len(np.intersect1d(rows[query][best], found)) / len(best)

    def share_of_exhaustive(self, query: int, found: NDArray[Any], k: int) -> float | None:
        """Return how many of the nearest features are among the first hits, 100 of each or k."""
        if query >= len(self._collection.nearest):
            return None
        true = self._collection.nearest[query][:k]
        return len(np.intersect1d(true, found[: len(true)])) / len(true)

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """Codes within each distance of a query, shape=(Q, B + 1), dtype=int64."""
        return self._kept(f"counts-{self.queries}.npy", self._count)

    def _count(self) -> NDArray[np.int64]:
        return np.stack(
            [
                np.cumsum(
                    np.bincount(self._distances(i), minlength=self._collection.source.bits + 1)
                )
                for i in range(self.queries)
            ]
        )

    def _distances(self, query: int) -> NDArray[np.uint16]:
        return hamming(self._collection.queries.codes[query], self._collection.codes)

    def prepare(self, candidates: int) -> None:
        """Find out now what `share_of_scan` will need, or read it from the last time."""
        self._scan(candidates)

    def _scan(self, candidates: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and feature distances by candidate, both of shape=(Q, candidates)."""
        wanted = min(candidates, self._collection.source.n)
        name = f"scan-{min(self.queries, JUDGED)}-{wanted}.npy"
        if name not in self._scans:
            pairs = self._kept(name, lambda: self._compare(wanted))
            self._scans[name] = pairs["row"].astype(np.int64), pairs["distance"]
        return self._scans[name]

    @cached_property
    def _scans(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]:
        return {}

    def _compare(self, candidates: int) -> NDArray[Any]:
        count = min(self.queries, JUDGED)
        pairs = np.empty((count, candidates), [("row", "u4"), ("distance", "f4")])
        for i in range(count):
            rows = np.sort(np.argsort(self._distances(i), kind="stable")[:candidates])
            features = self._collection.at(rows).features
            pairs["row"][i] = rows
            pairs["distance"][i] = _rounded_distances(
                self._collection.queries.features[i], features
            )
        return pairs

    def _kept(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        path = self._collection.folder / name
        if not path.exists():
            _write(path, make())
        return np.asarray(np.load(path))


def _write(path: Path, values: NDArray[Any]) -> None:
    making = path.with_name(f".{os.getpid()}-{path.name}")
    np.save(making, values)
    making.rename(path)


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-30))
    directions: NDArray[np.float32] = vectors / lengths
    return directions


def _rounded_distances(
    query: NDArray[np.float32], features: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return cosine distances of features rounded to signed bytes, as a store has them."""
    scales = np.maximum(features.max(axis=1, keepdims=True), -features.min(axis=1, keepdims=True))
    np.multiply(features, np.float32(127) / np.maximum(scales, np.float32(1e-30)), out=features)
    np.rint(features, out=features)
    lengths = np.maximum(np.linalg.norm(features, axis=1), np.float32(1e-30))
    distances: NDArray[np.float32] = 1 - features @ _directions(query[None])[0] / lengths
    return distances
