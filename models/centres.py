"""Centre codes: k-means for binary codes under the Hamming distance (k-majority)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_CHUNK_CODES = 32
"""Codes compared at a time, so that their distances from all centres stay in the cache."""


def learn_centres(
    codes: NDArray[np.uint8],
    count: int,
    *,
    bits: int,
    rounds: int,
    seed: int,
    between: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Learn centre codes such that every code has one nearby.

    Each round gives every code to its nearest centre and sets every bit of a centre to what the
    majority of its codes have, as k-means does with the mean. A centre that is left without
    codes, or that has become the same as another, starts again at the code farthest from its
    own centre. A round for 100,000 codes of 128 bits and 2,048 centres takes half a second of
    one core.

    Args:
        codes: shape=(N, ceil(B/8)), dtype=uint8, packed; at least `count` different ones.
        count: M, how many centres.
        bits: B.
        rounds: How often to reassign.
        seed: For the choice of the first centres.
        between: Called many times in each round, at most some hundredths of a second apart for
            2,048 centres; what it raises ends the learning.

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
    words = _words(codes)
    for _ in range(rounds):
        nearest, distances = _assign(words, _words(centres), between)
        centres = _majorities(codes, nearest, count, bits)
        farthest = np.argsort(-distances.astype(np.int32), kind="stable")
        centres = _refill(centres, codes, farthest, count)
    return centres


def _words(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Fill codes up to whole words with zeros, shape=(N, ceil(B/64)), dtype=uint64."""
    filled = np.zeros((len(codes), -(-codes.shape[1] // 8) * 8), np.uint8)
    filled[:, : codes.shape[1]] = codes
    return filled.view(np.uint64)


def _assign(
    codes: NDArray[np.uint64], centres: NDArray[np.uint64], between: Callable[[], None]
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Return the nearest centre of each code, the first of several, and the distance to it."""
    columns = np.ascontiguousarray(centres.T)
    nearest, distances = np.empty(len(codes), np.int64), np.empty(len(codes), np.uint16)
    # Up to 255 bits differ in a byte's range, which is faster to add up and to compare.
    kind: type[np.uint8 | np.uint16] = np.uint8 if len(columns) < 4 else np.uint16
    shape = (_CHUNK_CODES, len(centres))
    buffers = np.empty(shape, np.uint64), np.empty(shape, np.uint8), np.empty(shape, kind)
    for start in range(0, len(codes), _CHUNK_CODES):
        some = codes[start : start + _CHUNK_CODES]
        different, count, total = (buffer[: len(some)] for buffer in buffers)
        total[:] = 0
        for place, column in enumerate(columns):
            np.bitwise_xor(some[:, place, None], column, out=different)
            np.add(total, np.bitwise_count(different, out=count), out=total)
        part = slice(start, start + len(some))
        nearest[part] = total.argmin(axis=1)
        distances[part] = total.min(axis=1)
        between()
    return nearest, distances


def _majorities(
    codes: NDArray[np.uint8], nearest: NDArray[np.int64], count: int, bits: int
) -> NDArray[np.uint8]:
    """Return the centres that have any codes; equal votes make a zero."""
    order = np.argsort(nearest, kind="stable")
    sizes = np.bincount(nearest, minlength=count)
    starts = sizes.cumsum() - sizes
    centres = []
    for start, size in zip(starts[sizes > 0].tolist(), sizes[sizes > 0].tolist(), strict=True):
        members = np.unpackbits(codes[order[start : start + size]], axis=1, count=bits)
        centres.append(np.packbits(members.sum(axis=0, dtype=np.int64) * 2 > size))
    return np.stack(centres)


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
