"""Feature values as they are stored, and distances on what is stored.

A feature of D floats becomes D signed bytes and one scale, the largest of its absolute values
over 127: at most half a step of error per value, and a quarter of the space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 1e15
"""Values beyond it could overflow a float32 when squared and summed."""


def quantise(features: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round features to signed bytes.

    Args:
        features: shape=(N, D), dtype=float32, finite.

    Returns:
        Values, shape=(N, D), dtype=int8, and scales, shape=(N,), dtype=float32; a feature is
        about its values times its scale.
    """
    scales = (np.abs(features).max(axis=1) / np.float32(127)).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(1))
    values = np.rint(features.astype(np.float64) / divisors[:, None]).clip(-127, 127)
    return values.astype(np.int8), scales


def lengths(values: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the Euclidean lengths of stored values before scaling.

    Args:
        values: shape=(N, D), dtype=int8.

    Returns:
        shape=(N,), dtype=float32.
    """
    wide = values.astype(np.float64)
    found: NDArray[np.float32] = np.sqrt(np.vecdot(wide, wide)).astype(np.float32)
    return found


def restore(values: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `quantise`, up to its rounding.

    Args:
        values: shape=(N, D), dtype=int8.
        scales: shape=(N,), dtype=float32.

    Returns:
        shape=(N, D), dtype=float32.
    """
    return values.astype(np.float32) * scales[:, None]


def cosine_distances(
    query: NDArray[np.float32], values: NDArray[np.int8], norms: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return 1 - cos between a query and stored features; the scale cancels out.

    A feature of nothing but zeros has no direction: its distance is 0 to another such feature
    and 1 to everything else.

    Args:
        query: shape=(D,), dtype=float32.
        values: shape=(N, D), dtype=int8.
        norms: `lengths(values)`, shape=(N,), dtype=float32.

    Returns:
        shape=(N,), dtype=float32, 0 to 2.
    """
    length = np.linalg.norm(query.astype(np.float64))
    if length == 0:
        return (norms > 0).astype(np.float32)
    direction = (query / length).astype(np.float32)
    # One dot product per row: a matrix product would round a row differently by its place in
    # the batch, and the merge of two groups would not be what one search finds.
    cosines = np.vecdot(values.astype(np.float32), direction) / np.where(norms > 0, norms, 1)
    found: NDArray[np.float32] = np.clip(1 - cosines, 0, 2).astype(np.float32)
    return found


def l2_distances(
    query: NDArray[np.float32], values: NDArray[np.int8], scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return Euclidean distances between a query and stored features.

    Args:
        query: shape=(D,), dtype=float32.
        values: shape=(N, D), dtype=int8.
        scales: shape=(N,), dtype=float32.

    Returns:
        shape=(N,), dtype=float32.
    """
    # The difference itself, not |q|^2 + |x|^2 - 2qx, which loses small distances to rounding.
    differences = restore(values, scales) - query
    found: NDArray[np.float32] = np.sqrt(np.vecdot(differences, differences))
    return found
