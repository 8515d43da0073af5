"""Whether codes, features and queries have the form that a store asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from store.values import LARGEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.spec import Query, StoreSpec


def check_query(query: Query, spec: StoreSpec) -> None:
    """Raise a ValueError unless a query has the form that the spec asks for."""
    check_code(query.code, spec)
    check_feature(query.feature, spec)
    if query.k < 1 or (query.candidates is not None and query.candidates < 1):
        raise ValueError(
            f"expected k and candidates of at least 1, got {query.k} and {query.candidates}"
        )
    if not 0 <= query.code_weight < math.inf:
        raise ValueError(f"expected a finite code weight of at least 0, got {query.code_weight}")
    if query.max_distance is not None and math.isnan(query.max_distance):
        raise ValueError(f"expected a largest distance, got {query.max_distance}")


def check_group(group: int, groups: int) -> None:
    """Raise a ValueError unless there is such a group."""
    if not 0 <= group < groups:
        raise ValueError(f"expected a group from 0 to {groups - 1}, got {group}")


def check_code(code: NDArray[Any], spec: StoreSpec) -> None:
    """Raise a ValueError unless a code has the form that the spec asks for."""
    check_padding(stacked([code], spec.code_bytes, np.uint8, "code"), spec)


def check_feature(feature: NDArray[Any], spec: StoreSpec) -> None:
    """Raise a ValueError unless a feature has the form that the spec asks for."""
    stacked([feature], spec.dims, np.float32, "feature")
    if not np.abs(feature).max() < LARGEST:
        raise ValueError(f"expected a feature of finite values below {LARGEST:g}")


def stacked(
    arrays: Sequence[NDArray[Any]], length: int, kind: type[np.generic], what: str
) -> NDArray[Any]:
    """Join arrays of shape=(length,) into one, shape=(N, length).

    Raises:
        ValueError: One has another form.
    """
    forms = {(array.shape, array.dtype) for array in arrays}
    for shape, dtype in forms - {((length,), np.dtype(kind))}:
        raise ValueError(
            f"expected a {what} of shape ({length},) and dtype {np.dtype(kind)}, "
            f"got {shape} and {dtype}"
        )
    return np.array(arrays)


def check_padding(codes: NDArray[np.uint8], spec: StoreSpec) -> None:
    """Raise a ValueError unless codes, shape=(N, W), end in zeros where they are filled up."""
    if (codes[:, -1] & spec.padding_mask).any():
        raise ValueError(f"expected zeros after the {spec.bits} bits of the code")
