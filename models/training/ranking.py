"""How well a ranking puts images of the query's class first."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_QUERIES_AT_ONCE = 64

Distances = Callable[[slice], NDArray[np.float32]]


def rank_codes(
    queries: NDArray[np.uint8], database: NDArray[np.uint8], k: int
) -> NDArray[np.int64]:
    """Rank by Hamming distance, ties in the database's order.

    Args:
        queries: shape=(Q, W), dtype=uint8, packed codes.
        database: shape=(N, W), dtype=uint8.
        k: K, how many to keep; at most N.

    Returns:
        shape=(Q, K), dtype=int64; rows of the database, nearest first.
    """

    def distances(part: slice) -> NDArray[np.float32]:
        # A byte at a time: the work array stays (64, N) however long the codes are.
        found = np.zeros((len(queries[part]), len(database)), np.float32)
        for byte in range(database.shape[1]):
            found += np.bitwise_count(queries[part, byte, None] ^ database[:, byte])
        return found

    return _rank(distances, len(queries), len(database), k)


def rank_features(
    queries: NDArray[np.float32], database: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    """Rank by cosine distance, ties in the database's order.

    Args:
        queries: shape=(Q, D), dtype=float32.
        database: shape=(N, D), dtype=float32.
        k: K, how many to keep; at most N.

    Returns:
        shape=(Q, K), dtype=int64; rows of the database, nearest first.
    """
    ours, theirs = _unit(queries), _unit(database)

    def distances(part: slice) -> NDArray[np.float32]:
        found: NDArray[np.float32] = 1 - ours[part] @ theirs.T
        return found

    return _rank(distances, len(queries), len(database), k)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return unit


def _rank(distances: Distances, count: int, size: int, k: int) -> NDArray[np.int64]:
    if not 1 <= k <= size:
        raise ValueError(f"expected k from 1 to {size}, got {k}")
    starts = range(0, count, _QUERIES_AT_ONCE)
    parts = [_nearest(distances(slice(s, s + _QUERIES_AT_ONCE)), k) for s in starts]
    return np.concatenate(parts)


def _nearest(distances: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Columns of the k smallest values of each row, smallest first, ties by column."""
    # Bits of floats that are not negative sort as integers; the column below them breaks ties.
    keys = np.maximum(distances, 0).view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(distances.shape[1], dtype=np.uint64)
    nearest = np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1)
    return (nearest & np.uint64(0xFFFFFFFF)).astype(np.int64)


def mean_average_precision(
    relevant: NDArray[np.bool_], total: NDArray[np.int64] | None = None
) -> float:
    """Mean over the queries of the average precision at K.

    Args:
        relevant: shape=(Q, K), dtype=bool; whether the hit at each rank is of the query's class.
        total: shape=(Q,); how many relevant images the database holds for each query. Given,
            a ranking is charged for those it misses: the sum of the precisions at relevant
            ranks is divided by min(total, K). Not given, it is divided by the number found, as
            in the published evaluation code of Lin et al., CVPRW 2015.

    Returns:
        From 0 to 1; a query without anything relevant counts as 0.
    """
    ranks = np.arange(1, relevant.shape[1] + 1)
    precision = relevant.cumsum(1) / ranks
    found = relevant.sum(1) if total is None else np.minimum(total, relevant.shape[1])
    return float(((precision * relevant).sum(1) / np.maximum(found, 1)).mean())
