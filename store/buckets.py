"""Which bucket a code is filed in, and how near a bucket can be to a query.

Codes of up to 24 bits are their own bucket key. Longer codes are nearly all different and are
filed under the nearest of M centre codes, the binary form of an inverted file.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from store.codes import hamming_of_words, padding_mask, rows_of_words, words
from store.kernels import nearest_centres

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from store.spec import StoreSpec

LONGEST_KEY_BITS = 24
FIXED_CENTRES = 256

CODES_PER_CANDIDATE = 16
"""Codes looked at for each image compared by feature, where buckets are coarse."""


class Reach(NamedTuple):
    """How far buckets are from a query.

    Attributes:
        order: Nearer buckets have smaller numbers, shape=(M,), dtype=uint16.
        bounds: No code in the bucket is nearer to the query's, shape=(M,), dtype=int16.
    """

    order: NDArray[np.uint16]
    bounds: NDArray[np.int16]


class Buckets(Protocol):
    """A way to file codes in buckets.

    Attributes:
        codes_per_candidate: Codes to look at for each image compared by feature.
        centres: How many centre codes there are; 0 where a code is its own bucket.
    """

    codes_per_candidate: int
    centres: int

    def file(self, codes: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the keys of codes and their distances from the middle of the bucket.

        Args:
            codes: shape=(N, W), dtype=uint8.

        Returns:
            Keys, shape=(N,), dtype=uint32, and distances, shape=(N,), dtype=uint16.
        """

    def reach(self, code: NDArray[np.uint8], keys: NDArray[Any], radii: NDArray[Any]) -> Reach:
        """Return how far the buckets `keys` are from a query.

        Args:
            code: The query's code, shape=(W,), dtype=uint8.
            keys: shape=(M,), dtype=uint32.
            radii: No code in the bucket is further from its middle, shape=(M,).
        """


def open_buckets(spec: StoreSpec) -> Buckets:
    """Return the way to file codes that fits the spec, before any retraining.

    Raises:
        ValueError: The centres have the wrong shape or type, or short codes have centres.
    """
    if spec.bits <= LONGEST_KEY_BITS:
        if spec.centres is not None:
            raise ValueError(
                f"codes of up to {LONGEST_KEY_BITS} bits are their own bucket key: "
                "leave the centres out"
            )
        return CodeBuckets(spec.bits)
    return CentreBuckets(centres_of(spec))


def centres_of(spec: StoreSpec) -> NDArray[np.uint8]:
    """Return the centre codes that long codes are filed under.

    Raises:
        ValueError: The centres have the wrong shape or type.
    """
    if spec.centres is None:
        return fixed_centres(spec.bits)
    width, shape = spec.code_bytes, spec.centres.shape
    if spec.centres.dtype != np.uint8 or len(shape) != 2 or shape[1] != width or shape[0] < 1:
        raise ValueError(
            f"expected centres of shape (M, {width}) and dtype uint8, "
            f"got {shape} and {spec.centres.dtype}"
        )
    return spec.centres


def fixed_centres(bits: int) -> NDArray[np.uint8]:
    """Return the centres of a bundle that has learned none.

    They come from a hash, not from a random generator, whose stream may change some day.

    Returns:
        shape=(FIXED_CENTRES, W), dtype=uint8.
    """
    width = -(-bits // 8)
    stream = hashlib.shake_256(b"lookalike centres").digest(FIXED_CENTRES * width)
    centres = np.frombuffer(stream, np.uint8).reshape(FIXED_CENTRES, width).copy()
    centres[:, -1] &= 0xFF ^ padding_mask(bits)
    return centres


class CodeBuckets:
    """Every code has a bucket of its own."""

    codes_per_candidate = 1
    centres = 0

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._width = -(-bits // 8)

    def file(self, codes: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Buckets.file`: a code is the middle of its bucket."""
        wide = np.zeros((len(codes), 4), np.uint8)
        wide[:, 4 - self._width :] = codes
        keys = wide.view(">u4")[:, 0].astype(np.uint32) >> np.uint32(-self._bits % 8)
        return keys, np.zeros(len(codes), np.uint16)

    def reach(
        self,
        code: NDArray[np.uint8],
        keys: NDArray[Any],
        radii: NDArray[Any],  # noqa: ARG002 - always zero
    ) -> Reach:
        """See `Buckets.reach`: buckets come ring by ring of Hamming distance."""
        own, _ = self.file(code[None])
        distances = np.bitwise_count(keys ^ own[0]).astype(np.uint16)
        return Reach(distances, distances.view(np.int16))


class CentreBuckets:
    """A bucket holds the codes that are nearer to its centre than to any other.

    Args:
        centres: shape=(M, W), dtype=uint8.
    """

    codes_per_candidate = CODES_PER_CANDIDATE

    def __init__(self, centres: NDArray[np.uint8]) -> None:
        self._by_word = np.ascontiguousarray(rows_of_words(centres).T)
        self.centres = len(centres)

    def file(self, codes: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """See `Buckets.file`: of equally near centres the first counts."""
        return nearest_centres(rows_of_words(codes), self._by_word)

    def reach(self, code: NDArray[np.uint8], keys: NDArray[Any], radii: NDArray[Any]) -> Reach:
        """See `Buckets.reach`: buckets come by the distance of their centres.

        With q the query, x a code in the bucket of centre c and n the centre nearest to q, the
        triangle inequality gives two bounds, and the larger one holds:
        h(q, x) >= h(q, c) - h(c, x), and h(c, x) is at most the bucket's radius;
        2 h(q, x) >= h(q, c) - h(q, n), because h(c, x) <= h(n, x) <= h(n, q) + h(q, x).
        """
        to_centres = hamming_of_words(words(code), self._by_word.T)
        distances = to_centres[keys].astype(np.uint16)
        wide = distances.view(np.int16)
        by_nearest = (wide - (int(to_centres.min()) - 1)) >> 1
        return Reach(distances, np.maximum(wide - radii, by_nearest))
