"""The inner loops of a search: the nearest of many codes, and products of features.

`store/kernels.c` has them compiled. Where nothing could be compiled when lookalike was installed,
NumPy and numkong do the same, to the last bit, in two to five times the time.
"""

from __future__ import annotations

import threading
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numkong
import numpy as np

from store.codes import hamming_of_words

try:
    from store import _kernels
except ImportError:
    _kernels = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_VERSION = 1

COMPILED = _kernels is not None and _kernels.VERSION == _VERSION
"""Whether the loops are compiled, and from the source that belongs to this file."""

_WORD_BITS = 64
_LANES = 4
_DISTANCE_BITS = 16

_LONG_PIECE = 32
"""Pieces of so many codes on average are copied one by one, shorter ones code by code."""


_CODES_AT_ONCE = 16
"""Their distances from all centres fit into the processor's cache."""

_FAR = np.iinfo(np.int16).max
"""Beyond any distance."""

_kept_arrays = threading.local()


class Codes(NamedTuple):
    """Codes with the rows of their images.

    Attributes:
        rows: shape=(N,), dtype=int64 or uint32, below 2**48.
        words: Codes, filled up to words, shape=(N, V), dtype=uint64.
    """

    rows: NDArray[Any]
    words: NDArray[Any]

    def those(self, chosen: NDArray[Any]) -> Codes:
        """Return some of them, by a mask or by places."""
        return Codes(self.rows[chosen], self.words[chosen])


class Pieces(NamedTuple):
    """Some pieces of the codes of a run.

    Attributes:
        words: All codes of the run, filled up to words, shape=(V, N), dtype=uint64.
        rows: Their rows, shape=(N,), dtype=uint32 or int64, below 2**48.
        dead: Which do not count, shape=(N,), dtype=bool; None where all do.
        starts: Where the pieces begin, shape=(P,), dtype=int64.
        ends: Where they end, shape=(P,), dtype=int64.
    """

    words: NDArray[np.uint64]
    rows: NDArray[Any]
    dead: NDArray[np.bool_] | None
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many codes are in the pieces, dead ones included."""
        return int((self.ends - self.starts).sum())


class Nearest(NamedTuple):
    """The codes nearest to a query's.

    Attributes:
        rows: shape=(N,), dtype=int64, ascending.
        hamming: Their distances, shape=(N,), dtype=uint16.
        seen: How many codes there were.
        missed: Distance of the nearest one that is not among them; None where all are.
    """

    rows: NDArray[np.int64]
    hamming: NDArray[np.uint16]
    seen: int
    missed: int | None


def nearest_buckets(
    distances: NDArray[np.uint16],
    counts: NDArray[np.int64],
    bounds: NDArray[np.int16],
    wanted: int,
) -> tuple[NDArray[np.bool_], int]:
    """Choose the nearest buckets that together hold enough images.

    Ring by ring, since sorting a hundred thousand buckets takes longer than the search. The
    first buckets of the last ring fill up what is missing.

    Args:
        distances: Of the buckets, shape=(M,).
        counts: Their images, shape=(M,); all together at least `wanted`.
        bounds: No code of theirs is nearer, shape=(M,).
        wanted: Images.

    Returns:
        Which buckets, shape=(M,), and the smallest bound of the others.
    """
    if COMPILED:
        chosen = np.empty(len(counts), np.bool_)
        return chosen, _kernels.choose(distances, counts, bounds, wanted, chosen)
    filled = np.cumsum(np.bincount(distances, weights=counts))
    ring = int(np.searchsorted(filled, wanted))
    chosen = distances < ring
    on_ring = np.flatnonzero(distances == ring)
    missing = wanted - (filled[ring - 1] if ring else 0)
    last = int(np.searchsorted(np.cumsum(counts[on_ring]), missing))
    chosen[on_ring[: last + 1]] = True
    return chosen, int(bounds[~chosen].min(initial=_FAR))


def nearest_centres(
    codes: NDArray[np.uint64], centres: NDArray[np.uint64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Find the nearest centre of each code; of equally near ones the first.

    Args:
        codes: Filled up to words, shape=(N, V).
        centres: Likewise, a row for each word, shape=(V, M).

    Returns:
        Places of the centres and distances from them, shape=(N,).
    """
    places, distances = np.empty(len(codes), np.uint32), np.empty(len(codes), np.uint16)
    if COMPILED:
        _kernels.file(codes, centres, len(centres), places, distances)
        return places, distances
    for start in range(0, len(codes), _CODES_AT_ONCE):
        chunk = slice(start, start + _CODES_AT_ONCE)
        counts = np.zeros((len(codes[chunk]), centres.shape[1]), np.uint16)
        for word, of_word in zip(codes[chunk].T, centres, strict=True):
            counts += np.bitwise_count(word[:, None] ^ of_word)
        places[chunk] = counts.argmin(axis=1)
        distances[chunk] = counts.min(axis=1)
    return places, distances


def nearest(runs: Sequence[Pieces], code: NDArray[np.uint64], wanted: int | None) -> Nearest:
    """Find the nearest codes; of equally near ones those with the smaller rows.

    Args:
        runs: Where to look.
        code: The query's, filled up to words, shape=(V,), dtype=uint64.
        wanted: How many; None for all.
    """
    if not COMPILED:
        return nearest_of(gather(runs, len(code)), code, wanted)
    counts = np.zeros((_LANES, _WORD_BITS * len(code) + 1), np.int64)
    distances = _scratch([len(run) for run in runs])
    for run, of_run in zip(runs, distances, strict=True):
        _kernels.count(run.words, run.starts, run.ends, code, run.dead, of_run, counts)
    up_to = counts.sum(axis=0).cumsum()
    seen = int(up_to[-1])
    wanted = seen if wanted is None else min(wanted, seen)
    packed = _picked(runs, distances, up_to, int(up_to.searchsorted(wanted)))[:wanted]
    packed.sort()
    rows = (packed >> _DISTANCE_BITS).view(np.int64)
    missed = int(up_to.searchsorted(wanted, side="right")) if wanted < seen else None
    return Nearest(rows, packed.astype(np.uint16), seen, missed)


def _scratch(sizes: Sequence[int]) -> list[NDArray[np.uint16]]:
    """Return arrays of the thread's own, which its next call will overwrite.

    New ones of this size come from the kernel each time, page by page.
    """
    ends = list(accumulate(sizes, initial=0))
    kept = getattr(_kept_arrays, "distances", None)
    if kept is None or len(kept) < ends[-1]:
        kept = _kept_arrays.distances = np.empty(ends[-1], np.uint16)
    return [kept[start:end] for start, end in pairwise(ends)]


def _picked(
    runs: Sequence[Pieces],
    distances: Sequence[NDArray[np.uint16]],
    up_to: NDArray[np.int64],
    line: int,
) -> NDArray[np.uint64]:
    """Return row and distance of what is nearer than a line, then what is on it, oldest first."""
    before, found = int(up_to[line - 1]) if line else 0, np.empty(int(up_to[line]), np.uint64)
    n, m = 0, before
    for run, of_run in zip(runs, distances, strict=True):
        into = found[n:before], found[m:]
        size = run.rows.itemsize
        nearer, level = _kernels.pick(run.rows, size, run.starts, run.ends, of_run, line, *into)
        n, m = n + nearer, m + level
    found[before:].sort()
    return found


def gather(runs: Sequence[Pieces], words: int) -> Codes:
    """Copy the codes of runs together, without the dead ones.

    Args:
        runs: Where they are.
        words: V, of a code.
    """
    parts = [_gathered(run) for run in runs]
    if len(parts) == 1:
        return parts[0]
    empty = Codes(np.empty(0, np.int64), np.empty((0, words), np.uint64))
    return Codes(*(np.concatenate(column) for column in zip(*(parts or [empty]), strict=True)))


def _gathered(run: Pieces) -> Codes:
    found = Codes(_joined(run, run.rows[None])[0], _joined(run, run.words).T)
    return found if run.dead is None else found.those(~_joined(run, run.dead[None])[0])


def _joined(run: Pieces, array: NDArray[Any]) -> NDArray[Any]:
    """Return the pieces of an array, shape=(V, N), one behind the other: shape=(V, sum)."""
    total = len(run)
    if total < _LONG_PIECE * len(run.starts):
        counts = run.ends - run.starts
        places = np.repeat(run.starts - np.cumsum(counts) + counts, counts) + np.arange(total)
        return np.take(array, places, axis=1)
    pairs = zip(run.starts.tolist(), run.ends.tolist(), strict=True)
    return np.concatenate([array[:, :0], *(array[:, a:b] for a, b in pairs)], axis=1)


def nearest_of(codes: Codes, code: NDArray[np.uint64], wanted: int | None) -> Nearest:
    """Find the nearest of codes that lie together, as `nearest` does."""
    distances = hamming_of_words(code, codes.words).astype(np.uint16)
    kept = _kept(distances, codes.rows, wanted)
    places = np.flatnonzero(kept)
    rows = codes.rows[places].astype(np.int64)
    by_row = np.argsort(rows)
    missed = distances[~kept]
    return Nearest(
        rows[by_row],
        distances[places][by_row],
        len(distances),
        int(missed.min()) if len(missed) else None,
    )


def _kept(
    distances: NDArray[np.uint16], rows: NDArray[Any], wanted: int | None
) -> NDArray[np.bool_]:
    """Mark the `wanted` nearest codes, the older ones first where distances are equal."""
    if wanted is None or len(distances) <= wanted:
        return np.ones(len(distances), np.bool_)
    line = np.partition(distances, wanted - 1)[wanted - 1]
    kept: NDArray[np.bool_] = distances < line
    on_line = np.flatnonzero(distances == line)
    oldest = np.argsort(rows[on_line].astype(np.int64))[: wanted - int(kept.sum())]
    kept[on_line[oldest]] = True
    return kept


def products(
    values: NDArray[np.int8],
    slots: NDArray[np.int64],
    coarse: NDArray[np.int16],
    fine: NDArray[np.int16] | None,
    into: NDArray[np.int32],
) -> None:
    """Compute the exact dot products of stored values with one or two queries.

    Args:
        values: shape=(S, D), dtype=int8.
        slots: Which of them, shape=(N,), dtype=int64.
        coarse: shape=(D,), -127 to 127.
        fine: shape=(D,), -127 to 127, or None.
        into: Where to put them, shape=(N, 1 or 2), contiguous.
    """
    if COMPILED:
        _kernels.products(values, slots, coarse, fine, into)
        return
    taken = np.take(values, slots, axis=0)
    for place, query in enumerate([coarse] if fine is None else [coarse, fine]):
        into[:, place] = dots(query.astype(np.int8)[None], taken)


def dots(one: NDArray[np.int8], values: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return exact dot products.

    Args:
        one: shape=(1, D), dtype=int8.
        values: shape=(N, D), dtype=int8.

    Returns:
        shape=(N,), dtype=float64, whole numbers.
    """
    if not len(values):  # which the library refuses
        return np.empty(0)
    return np.asarray(numkong.cdist(one, values, "dot")).reshape(-1)
