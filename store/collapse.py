"""Near-duplicates among the hits of a search, to be shown as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def near_duplicates(features: NDArray[np.float32], metric: str, limit: float) -> NDArray[np.intp]:
    """Group hits that are the same picture, or nearly so.

    A hit belongs to the first hit before it that stands for itself and is near enough. So two
    hits of a group are at most twice the limit apart, and a long chain of small changes is not
    one group.

    Args:
        features: Of the hits, the best first, shape=(K, D), dtype=float32.
        metric: "cosine" or "l2", as in `StoreSpec`.
        limit: The largest distance of two near-duplicates.

    Returns:
        For each hit the place of the one that stands for it, often its own, shape=(K,).
    """
    near = _distances(features, metric) <= limit
    leaders = np.full(len(features), -1, np.intp)
    for place in range(len(features)):
        if leaders[place] < 0:
            group = near[place] & (leaders < 0)
            group[place] = True
            leaders[group] = place
    return leaders


def _distances(features: NDArray[np.float32], metric: str) -> NDArray[np.float64]:
    """Return the distances of all pairs, shape=(K, K), by the definitions of `store.values`."""
    wide = features.astype(np.float64)
    products, squares = wide @ wide.T, np.vecdot(wide, wide)
    if metric == "l2":
        found = squares[:, None] + squares[None] - 2 * products
        apart: NDArray[np.float64] = np.sqrt(np.maximum(found, 0))
        return apart
    lengths = np.sqrt(squares)
    both = lengths[:, None] * lengths[None]
    nothing = np.zeros_like(products)
    cosines: NDArray[np.float64] = np.divide(products, both, out=nothing, where=both > 0)
    # Two features of nothing but zeros are equal, though they have no direction.
    cosines[(squares[:, None] == 0) & (squares[None] == 0)] = 1
    return 1 - cosines
