"""Near-duplicates among the hits of a search, to be shown as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numkong
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.spec import Features

_CHUNK = 64
"""Hits whose distances are computed at a time, so that they stay in the processor's cache."""


def near_duplicates(features: Features, metric: str, limit: float) -> NDArray[np.intp]:
    """Group hits that are the same picture, or nearly so.

    A hit belongs to the first hit before it that stands for itself and is near enough. So two
    hits of a group are at most twice the limit apart, and a long chain of small changes is not
    one group.

    Args:
        features: Of N hits, the best first.
        metric: "cosine" or "l2", as in `StoreSpec`.
        limit: The largest distance of two near-duplicates.

    Returns:
        For each hit the place of the one that stands for it, often its own, shape=(N,).
    """
    count = len(features.values)
    leaders = np.full(count, -1, np.intp)
    if not count:
        return leaders
    # Of bytes, so exact: the upper half of the matrix, in which a hit meets those after it.
    products = np.asarray(numkong.dots_symmetric(features.values))
    for start in range(0, count, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        near = _distances(features, chunk, products[chunk, start:], metric) <= limit
        for place, row in enumerate(near, start):
            if leaders[place] < 0:
                leaders[place] = place
                rest = leaders[place + 1 :]
                rest[row[place + 1 - start :] & (rest < 0)] = place
    return leaders


def _distances(
    features: Features, chunk: slice, products: NDArray[Any], metric: str
) -> NDArray[np.float64]:
    """Return the distances of some hits from those behind, as `store.values` defines them.

    Args:
        features: Of N hits.
        chunk: Which of them, C.
        products: Of their values with those of the hits from the first of them on, shape=(C, M).
        metric: "cosine" or "l2".

    Returns:
        shape=(C, M).
    """
    behind = slice(chunk.start, None)
    squares = features.squares.astype(np.float64)
    if metric == "l2":
        scales = features.scales.astype(np.float64)
        squares *= scales * scales
        mixed = 2 * scales[chunk, None] * scales[behind] * products
        found = squares[chunk, None] + squares[behind] - mixed
        apart: NDArray[np.float64] = np.sqrt(np.maximum(found, 0))
        return apart
    both = np.sqrt(squares[chunk, None] * squares[behind])
    # Two features of nothing but zeros are equal, though they have no direction.
    cosines = np.equal(squares[chunk, None], squares[behind]).astype(np.float64)
    np.divide(products, both, out=cosines, where=both > 0)
    return 1 - cosines
