"""Asking a store, with nothing imported that a process of its own would have to wait for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.bench.synthetic import rows_of
from store import Query, Shard


@dataclass(frozen=True)
class Vectors:
    """Features, shape=(N, D), dtype=float32, and their codes, shape=(N, W), dtype=uint8."""

    features: NDArray[np.float32]
    codes: NDArray[np.uint8]


def read_queries(folder: Path) -> Vectors:
    """Return what a collection is searched with."""
    return read_vectors(folder / "queries.npz")


def read_vectors(path: Path) -> Vectors:
    """Return what `write_vectors` wrote."""
    with np.load(path) as file:
        return Vectors(file["features"], file["codes"])


def write_vectors(path: Path, vectors: Vectors) -> None:
    """Write an .npz file."""
    np.savez(path, features=vectors.features, codes=vectors.codes)


@dataclass(frozen=True)
class Found:
    """An answer: rows of the hits, nearest first, or Hamming distances of the candidates."""

    rows: NDArray[Any] | None = None
    hamming: NDArray[Any] | None = None
    stages_ms: dict[str, float] | None = None


@dataclass(frozen=True)
class Asked:
    """A store that is asked for k hits, of so many candidates; `None` compares every image."""

    shard: Shard
    queries: Vectors
    k: int
    wanted: int | None

    def query(self, i: int) -> Query:
        """Return the query of a number."""
        code, feature = self.queries.codes[i], self.queries.features[i]
        return Query(code=code, feature=feature, k=self.k, candidates=self.wanted)

    def candidates(self, i: int) -> Found:
        """Choose the candidates; no feature is read."""
        return Found(hamming=self.shard.candidates(self.query(i)).hamming)

    def whole(self, i: int) -> Found:
        """Search up to the ids and distances of the hits."""
        partial = self.shard.search(self.query(i))
        return Found(rows=rows_of(partial.ids), stages_ms=partial.timings_ms)

    def with_records(self, i: int) -> Found:
        """Search and read the records of the hits."""
        partial = self.shard.search(self.query(i))
        self.shard.hits(partial)
        return Found(rows=rows_of(partial.ids), stages_ms=partial.timings_ms)

    def timed(self, i: int) -> float:
        """Return how many milliseconds a search takes."""
        begin = time.perf_counter()
        self.whole(i)
        return (time.perf_counter() - begin) * 1000
