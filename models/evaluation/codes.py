"""How well codes use their bits, and how evenly they fill buckets."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BitFigures:
    """How N images use B bits.

    Attributes:
        ones: Share of images that have each bit set, shape=(B,), dtype=float64.
        entropy: Shannon entropy of each bit, 0 to 1, shape=(B,), dtype=float64.
        mean_correlation: Mean absolute correlation of two different bits.
        largest_correlation: The largest.
        effective_bits: How many independent fair bits would spread the distances of different
            images as narrowly: p (1 - p) / s^2 with mean p and variance s^2 of the normalised
            Hamming distance (Daugman, "The importance of being random: statistical principles
            of iris recognition", Pattern Recognition 36, 2003, section 3).
    """

    ones: NDArray[np.float64]
    entropy: NDArray[np.float64]
    mean_correlation: float
    largest_correlation: float
    effective_bits: float


def bit_figures(codes: NDArray[np.uint8], *, bits: int) -> BitFigures:
    """Describe the bits of packed codes.

    Args:
        codes: shape=(N, ceil(B/8)), dtype=uint8, N at least 1.
        bits: B.
    """
    # -1 and 1, so that products say whether two bits agree.
    signs = np.unpackbits(codes, axis=1, count=bits).astype(np.float32) * 2 - 1
    mean = signs.mean(0, dtype=np.float64)
    agreement = (signs.T @ signs).astype(np.float64) / len(signs)
    ones = (1 + mean) / 2
    correlations = _correlations(agreement, mean)
    return BitFigures(
        ones=ones,
        entropy=_entropy(ones),
        mean_correlation=float(correlations.mean()) if bits > 1 else 0.0,
        largest_correlation=float(correlations.max(initial=0.0)),
        effective_bits=_effective(agreement, mean),
    )


def _entropy(ones: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.stack([ones, 1 - ones])
    # What never happens adds nothing; log 1 = 0 stands for it.
    found = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(0)
    return np.asarray(np.abs(found))


def _correlations(
    agreement: NDArray[np.float64], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Absolute correlations of the pairs of different bits; a bit that never changes has 0."""
    spread = np.sqrt((1 - mean**2).clip(0))
    scale = np.outer(spread, spread)
    covariance = agreement - np.outer(mean, mean)
    found = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 1e-9)
    return np.abs(found[np.triu_indices(len(mean), 1)]).clip(0, 1)


def _effective(agreement: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    """Daugman's figure, over all pairs of images, from the moments of the bits.

    With z the signs of two images drawn at random, the normalised distance is
    (1 - sum z z' / B) / 2, the mean of sum z z' is |E z|^2 and that of its square |E z z^T|^2.
    """
    bits = len(mean)
    product = float(mean @ mean)
    distance = (1 - product / bits) / 2
    variance = (float((agreement**2).sum()) - product**2) / (2 * bits) ** 2
    return distance * (1 - distance) / variance if variance > 1e-12 else 0.0


@dataclass(frozen=True)
class BucketFigures:
    """How N images lie in buckets.

    Attributes:
        used: Buckets that hold an image.
        largest: Images in the fullest bucket.
        mean_own: Images in the bucket of an image, on average over the images.
        top_percent_share: Share of the images that lie in the fullest hundredth of the used
            buckets (at least one bucket).
        gini: Gini coefficient of the sizes of the used buckets: 0 where all are equal, near 1
            where one holds nearly everything.
    """

    used: int
    largest: int
    mean_own: float
    top_percent_share: float
    gini: float


def bucket_figures(keys: NDArray[np.uint32]) -> BucketFigures:
    """Describe how buckets are filled.

    Args:
        keys: The bucket of each image, shape=(N,), dtype=uint32, N at least 1.
    """
    sizes = np.sort(np.unique(keys, return_counts=True)[1])
    count, images = len(sizes), int(sizes.sum())
    ranks = np.arange(1, count + 1)
    return BucketFigures(
        used=count,
        largest=int(sizes[-1]),
        mean_own=float((sizes**2).sum() / images),
        top_percent_share=float(sizes[-max(1, count // 100) :].sum() / images),
        gini=float((2 * ranks - count - 1) @ sizes / (count * images)),
    )
