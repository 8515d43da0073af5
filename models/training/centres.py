"""Centre codes: k-means for binary codes under the Hamming distance (k-majority)."""

import numpy as np
from numpy.typing import NDArray


def learn_centres(
    codes: NDArray[np.uint8], count: int, *, bits: int, rounds: int, seed: int
) -> NDArray[np.uint8]:
    """Learn centre codes such that every code has one nearby.

    Each round gives every code to its nearest centre and sets every bit of a centre to what the
    majority of its codes have, as k-means does with the mean. A centre that is left without
    codes, or that has become the same as another, starts again at the code farthest from its
    own centre.

    Args:
        codes: shape=(N, ceil(B/8)), dtype=uint8, packed; at least `count` different ones.
        count: M, how many centres.
        bits: B.
        rounds: How often to reassign.
        seed: For the choice of the first centres.

    Returns:
        shape=(M, ceil(B/8)), dtype=uint8, packed, all different.

    Raises:
        ValueError: There are fewer different codes than centres.
    """
    distinct = np.unique(codes, axis=0)
    if len(distinct) < count:
        raise ValueError(f"expected at least {count} different codes, got {len(distinct)}")
    rng = np.random.default_rng(seed)
    centres = distinct[rng.choice(len(distinct), count, replace=False)]
    signs = _signs(codes, bits)
    for _ in range(rounds):
        nearest, similarity = _assign(signs, _signs(centres, bits))
        centres = _majorities(signs, nearest, count)
        centres = _refill(centres, codes, np.argsort(similarity, kind="stable"), count)
    return centres


def _signs(codes: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """Unpack to -1 and 1: the inner product of two codes is then B minus twice their distance."""
    return np.unpackbits(codes, axis=1, count=bits).astype(np.float32) * 2 - 1


def _assign(
    signs: NDArray[np.float32], centres: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    nearest, similarity = np.empty(len(signs), np.int64), np.empty(len(signs), np.float32)
    for start in range(0, len(signs), 4096):
        part = slice(start, start + 4096)
        products = signs[part] @ centres.T
        nearest[part] = products.argmax(1)
        similarity[part] = products.max(1)
    return nearest, similarity


def _majorities(
    signs: NDArray[np.float32], nearest: NDArray[np.int64], count: int
) -> NDArray[np.uint8]:
    order = np.argsort(nearest, kind="stable")
    sizes = np.bincount(nearest, minlength=count)
    kept = sizes > 0
    starts = (sizes.cumsum() - sizes)[kept]
    votes = np.add.reduceat(signs[order], starts, axis=0)
    return np.packbits(votes > 0, axis=1)


def _refill(
    centres: NDArray[np.uint8], codes: NDArray[np.uint8], farthest: NDArray[np.int64], count: int
) -> NDArray[np.uint8]:
    """Make up the number of centres with the codes that lie farthest from theirs."""
    centres = np.unique(centres, axis=0)
    known = {centre.tobytes() for centre in centres}
    fresh: list[NDArray[np.uint8]] = []
    for index in farthest:
        if len(centres) + len(fresh) == count:
            break
        if codes[index].tobytes() not in known:
            known.add(codes[index].tobytes())
            fresh.append(codes[index])
    return np.concatenate([centres, np.stack(fresh)]) if fresh else centres
