"""Whether a store was built with the bundle in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import StoreMismatch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from store.spec import StoreSpec


def insist_on_match(folder: Path, stored: StoreSpec, wanted: StoreSpec) -> None:
    """Compare the bundle that a store was built with and the one in use.

    Raises:
        StoreMismatch: They are not the same; both are named.
    """
    remedy = "go back to that bundle, or ingest into another folder"
    if stored.bundle_id != wanted.bundle_id:
        raise StoreMismatch(
            f"the store in {folder} was built with bundle {stored.bundle_id}, "
            f"and {wanted.bundle_id} is in use: {remedy}"
        )
    for name in ("bits", "dims", "metric"):
        there, here = getattr(stored, name), getattr(wanted, name)
        if there != here:
            raise StoreMismatch(
                f"the store in {folder} was built with a bundle {stored.bundle_id} of {name} "
                f"{there}, and the one in use has {here}: {remedy}"
            )
    if not _same_centres(stored.centres, wanted.centres):
        raise StoreMismatch(
            f"the store in {folder} was built with other centre codes than those of "
            f"{wanted.bundle_id}: {remedy}"
        )


def _same_centres(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
