"""Which images of a database are nearest to each query: by code, by feature, or by both."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

QUERIES_AT_ONCE = 64
"""The work arrays of a ranking have a row for each of these queries, whatever their number."""

Distances = Callable[[slice], NDArray[np.float32]]


def blocks(count: int) -> Iterator[slice]:
    """Cut queries into the blocks that are ranked at a time."""
    return (slice(start, start + QUERIES_AT_ONCE) for start in range(0, count, QUERIES_AT_ONCE))


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

    Raises:
        ValueError: k does not fit the database.
    """
    ours, theirs = as_words(queries), as_words(database)
    parts = [nearest(hamming(ours[part], theirs), k) for part in blocks(len(queries))]
    return np.concatenate(parts)


def rank_features(
    queries: NDArray[np.float32], database: NDArray[np.float32], k: int, *, metric: str = "cosine"
) -> NDArray[np.int64]:
    """Rank by the distance of features, ties in the database's order.

    Args:
        queries: shape=(Q, D), dtype=float32.
        database: shape=(N, D), dtype=float32.
        k: K, how many to keep; at most N.
        metric: "cosine" or "l2".

    Returns:
        shape=(Q, K), dtype=int64; rows of the database, nearest first.

    Raises:
        ValueError: k does not fit the database, or there is no such metric.
    """
    distances = feature_distances(queries, database, metric=metric)
    return np.concatenate([nearest(distances(part), k) for part in blocks(len(queries))])


def as_words(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """View packed codes, shape=(N, W), as words of 64 bits, shape=(N, ceil(W/8))."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 8)))
    return np.ascontiguousarray(padded).view(np.uint64)


def hamming(queries: NDArray[np.uint64], database: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Count the bits in which every query differs from every code of the database.

    Args:
        queries: shape=(Q, V), dtype=uint64, of `as_words`.
        database: shape=(N, V), dtype=uint64.

    Returns:
        shape=(Q, N), dtype=uint16.
    """
    found = np.zeros((len(queries), len(database)), np.uint16)
    # Word by word: the work array stays (Q, N) however long the codes are.
    for word in range(database.shape[1]):
        found += np.bitwise_count(queries[:, word, None] ^ database[:, word])
    return found


def feature_distances(
    queries: NDArray[np.float32], database: NDArray[np.float32], *, metric: str
) -> Distances:
    """Prepare the distances of queries to a database.

    Args:
        queries: shape=(Q, D), dtype=float32.
        database: shape=(N, D), dtype=float32.
        metric: "cosine" (1 - cos) or "l2" (Euclidean; from the expanded square, which rounds
            distances that are tiny beside the lengths of the features).

    Returns:
        A function from a slice of the queries to distances, shape=(part, N), dtype=float32,
        not negative.

    Raises:
        ValueError: There is no such metric.
    """
    if metric == "cosine":
        return _cosine(queries, database)
    if metric == "l2":
        return _euclidean(queries, database)
    raise ValueError(f'expected the metric "cosine" or "l2", got {metric!r}')


def nearest(distances: NDArray[np.float32] | NDArray[np.uint16], k: int) -> NDArray[np.int64]:
    """Return the columns of the k smallest values of each row, smallest first, ties by column.

    Args:
        distances: shape=(Q, N), dtype=float32 or uint16, not negative.
        k: K, 1 to N.

    Returns:
        shape=(Q, K), dtype=int64.

    Raises:
        ValueError: k is out of range.
    """
    if not 1 <= k <= distances.shape[1]:
        raise ValueError(f"expected k from 1 to {distances.shape[1]}, got {k}")
    # Bits of floats that are not negative sort as integers; the column below them breaks ties.
    whole = distances.view(np.uint32) if distances.dtype == np.float32 else distances
    keys = whole.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(distances.shape[1], dtype=np.uint64)
    first = np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1)
    return (first & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _cosine(queries: NDArray[np.float32], database: NDArray[np.float32]) -> Distances:
    ours, theirs = _unit(queries), _unit(database)

    def distances(part: slice) -> NDArray[np.float32]:
        # In place: each pass over (part, N) costs a tenth of the product.
        found: NDArray[np.float32] = ours[part] @ theirs.T
        np.subtract(1, found, out=found)
        return np.maximum(found, 0, out=found)

    return distances


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return unit


def _euclidean(queries: NDArray[np.float32], database: NDArray[np.float32]) -> Distances:
    ours, theirs = np.vecdot(queries, queries), np.vecdot(database, database)

    def distances(part: slice) -> NDArray[np.float32]:
        square = ours[part, None] + theirs - 2 * (queries[part] @ database.T)
        found: NDArray[np.float32] = np.sqrt(np.maximum(square, 0))
        return found

    return distances
