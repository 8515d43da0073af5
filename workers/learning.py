"""Learning the centre codes that a shard files its images by, from the codes it holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.centres import learn_centres
from store import Shard

CODES_PER_CENTRE = 48
"""Codes to learn from for each centre: more made no difference that a search could show."""

ROUNDS = 8

_SEED = 0


def learn_for(
    shard: Shard, count: int, *, between: Callable[[], None] = lambda: None
) -> NDArray[np.uint8] | None:
    """Learn centre codes from a sample of a shard.

    Takes about half a second of one core for each 2,048 centres, 100,000 codes of 128 bits and
    round; there are `ROUNDS` rounds.

    Args:
        shard: Whose codes are learned from.
        count: How many centres; fewer where fewer than twice as many codes are different.
        between: Called many times a second; what it raises ends the learning.

    Returns:
        shape=(M, W), dtype=uint8, or None where there are no two different codes.
    """
    codes = shard.sample_codes(count * CODES_PER_CENTRE, _SEED)
    count = min(count, len(np.unique(codes, axis=0)) // 2)
    if not count:
        return None
    bits = shard.spec.bits
    return learn_centres(codes, count, bits=bits, rounds=ROUNDS, seed=_SEED, between=between)
