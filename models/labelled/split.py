"""Sets some images aside that are not learned from."""

import numpy as np
from numpy.typing import NDArray

from models.labelled.errors import CorpusError


def hold_out(
    labels: NDArray[np.int64], *, share: float, most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose images of every class to be held out.

    Args:
        labels: shape=(N,), dtype=int64.
        share: Of each class, from 0 to 1; at least one image of a class that has two.
        most: About how many images to hold out at most, over all classes.
        seed: For the choice.

    Returns:
        Rows to learn from and rows held out, both sorted.

    Raises:
        CorpusError: No class has two images.
    """
    rng = np.random.default_rng(seed)
    share = min(share, most / max(len(labels), 1))
    held: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = max(round(share * len(rows)), 1) if len(rows) > 1 else 0
        held.append(rows[:count])
    chosen = np.sort(np.concatenate(held)) if held else np.empty(0, np.int64)
    if not len(chosen):
        raise CorpusError("no class has two images, so none can be held out; give more images")
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen
