"""Feature values as they are stored, and distances on what is stored.

A feature of D floats becomes D signed bytes and one scale, the largest of its absolute values
over 127: at most half a step of error per value, and a quarter of the space. The query becomes
two such features, the second for what the first leaves over, so that it is off by at most
1/64,516 of its largest value. Products of bytes are whole numbers: they are exact, whatever other
rows are in the batch and whatever the processor, and the merge of two groups is what one search
finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numkong
import numpy as np

from store import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 1e15
"""Values beyond it could overflow a float32 when squared and summed."""


class QueryValues(NamedTuple):
    """A query as bytes: about `coarse_scale * coarse + fine_scale * fine`.

    Attributes:
        coarse: -127 to 127, shape=(D,), dtype=int16.
        fine: Likewise; None where nothing is left over, as of a stored feature itself.
        coarse_scale: Of the coarse values.
        fine_scale: Of the fine values.
        square: Of the length of that sum.
    """

    coarse: NDArray[np.int16]
    fine: NDArray[np.int16] | None
    coarse_scale: float
    fine_scale: float
    square: float

    def room(self, count: int) -> NDArray[np.int32]:
        """Return an array for the products with so many stored features."""
        return np.empty((count, 1 if self.fine is None else 2), np.int32)

    def multiply(
        self, values: NDArray[np.int8], slots: NDArray[np.int64], into: NDArray[np.int32]
    ) -> None:
        """Compute the products with some stored values, before any scale.

        Args:
            values: shape=(S, D), dtype=int8.
            slots: Which of them, shape=(N,), dtype=int64.
            into: Part of what `room` returned, shape=(N, 1 or 2).
        """
        kernels.products(values, slots, self.coarse, self.fine, into)

    def scaled(self, products: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return products, shape=(N, 1 or 2), times the query's scales: shape=(N,)."""
        wide = products.astype(np.float64)
        coarse: NDArray[np.float64] = self.coarse_scale * wide[:, 0]
        return coarse if self.fine is None else coarse + self.fine_scale * wide[:, 1]


def quantise(
    features: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.uint32]]:
    """Round features to signed bytes.

    Args:
        features: shape=(N, D), dtype=float32.

    Returns:
        Values, shape=(N, D), dtype=int8; scales, shape=(N,), dtype=float32; and the sums of the
        squared values, shape=(N,), dtype=uint32. A feature is about its values times its scale.

    Raises:
        ValueError: A value is beyond `LARGEST`, or no number.
    """
    scales = np.maximum(features.max(axis=1), -features.min(axis=1)) / np.float32(127)
    # Divided, not multiplied by the reciprocal, which overflows for the smallest floats.
    rounded = features / np.where(scales > 0, scales, np.float32(1))[:, None]
    if (scales < np.finfo(np.float32).tiny).any():
        # A scale among the smallest floats is itself rounded, and 127 steps of it fall short.
        np.clip(rounded, -127, 127, out=rounded)
    # The sum has no digits behind the point, and its last byte is that of the whole number.
    rounded += np.float32(3 << 22)
    values = rounded.view(np.int32).astype(np.int8)
    squares = np.asarray(numkong.dot(values, values)).astype(np.uint32)
    return values, scales, squares


def restore(values: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `quantise`, up to its rounding.

    Args:
        values: shape=(N, D), dtype=int8.
        scales: shape=(N,), dtype=float32.

    Returns:
        shape=(N, D), dtype=float32.
    """
    return values.astype(np.float32) * scales[:, None]


def query_values(feature: NDArray[np.float32]) -> QueryValues:
    """Turn a query's feature, shape=(D,), dtype=float32, into bytes."""
    wide = feature.astype(np.float64)
    coarse_scale = float(np.abs(wide).max()) / 127
    fine_scale = coarse_scale / 254
    step = coarse_scale or 1.0
    coarse = np.rint(wide / step).clip(-127, 127)
    fine = np.rint((wide - coarse * step) / (step / 254)).clip(-127, 127)
    total = coarse * coarse_scale + fine * fine_scale
    return QueryValues(
        coarse.astype(np.int16),
        fine.astype(np.int16) if fine.any() else None,
        coarse_scale,
        fine_scale,
        float(total @ total),
    )


def cosine_distances(
    query: QueryValues, products: NDArray[np.int32], squares: NDArray[np.uint32]
) -> NDArray[np.float32]:
    """Return 1 - cos between a query and stored features; the scale cancels out.

    A feature of nothing but zeros has no direction: its distance is 0 to another such feature
    and 1 to everything else.

    Args:
        query: From `query_values`.
        products: Of the query and each feature, from `multiply`, shape=(N, 1 or 2).
        squares: Sums of the squared values, shape=(N,), dtype=uint32.

    Returns:
        shape=(N,), dtype=float32, 0 to 2.
    """
    if query.square == 0:
        return (squares > 0).astype(np.float32)
    lengths = np.sqrt(query.square * np.maximum(squares, 1))
    found: NDArray[np.float32] = np.clip(1 - query.scaled(products) / lengths, 0, 2)
    return found.astype(np.float32)


def l2_distances(
    query: QueryValues,
    products: NDArray[np.int32],
    squares: NDArray[np.uint32],
    scales: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return Euclidean distances between a query and stored features.

    They are computed as |q|^2 - 2qx + |x|^2. The three are made of whole numbers without any
    rounding but that of double precision, so small distances are not lost in the difference.

    Args:
        query: From `query_values`.
        products: Of the query and each feature, from `multiply`, shape=(N, 1 or 2).
        squares: Sums of the squared values, shape=(N,), dtype=uint32.
        scales: shape=(N,), dtype=float32.

    Returns:
        shape=(N,), dtype=float32.
    """
    wide = scales.astype(np.float64)
    found = query.square - 2 * wide * query.scaled(products) + wide * wide * squares
    with np.errstate(over="ignore"):  # a scale whose bits were flipped: farther than all others
        return np.sqrt(np.maximum(found, 0)).astype(np.float32)
