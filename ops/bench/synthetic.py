"""Made-up images with the shape of real ones: clustered features, and codes that follow them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store import NewImage

MADE_OF = (
    "a mixture of {classes} classes of {kinds} kinds, with Zipf sizes and {subs} sub-clusters "
    "each, in {latent} directions; every image is a draw of its own, but its fine noise is a "
    "stretch of a tape of {tape} values that all share"
)

_KINDS, _ALIKE = 50, 0.6  # classes of one kind have so much of their variance in common
_UNSEEN = 16  # directions that features show and codes do not
_CLASSES, _SUBCLUSTERS, _LATENT = 3_000, 8, 64
_SUB_SPREAD = 0.5  # of sub-clusters around their class, the classes' own spread being 1
_SPREAD = 1.2  # of images around their sub-cluster, in the direction where they differ most
_FINE = 0.3  # of what no direction explains
_BIAS = -0.5  # leaves about a third of the values above zero
_TAPE = 1 << 20
_EXAMPLES = 4_096
_STRIDE = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Mixture:
    """A distribution of images in which near codes are near features.

    An image has a place z in a space of L = 64 directions, around a sub-cluster of its class and
    less spread in each direction than in the one before. Its feature is ReLU(z A + noise + bias),
    its code the signs of a fixed projection of the feature on most of the directions, cut at the
    medians. The spreads are such that lists of codes are as hard to search as those of CIFAR-10
    under lite0-128: of the 4,000 nearest of 49,000 codes, 8, 32, 64 and 128 of 256 lists hold
    0.36, 0.78, 0.94 and 1.00 (CIFAR-10: 0.35, 0.78, 0.95 and 1.00).

    Attributes:
        shares: Cumulated shares of the classes, shape=(C,), dtype=float64.
        centres: Of sub-clusters, shape=(C, S, L), dtype=float32.
        directions: A, shape=(L, D), dtype=float32.
        tape: Noise, shape=(T + D,), dtype=float32.
        projection: From features to what is cut into bits, shape=(D, B), dtype=float32.
        cuts: Where, shape=(B,), dtype=float32.
    """

    shares: NDArray[np.float64]
    centres: NDArray[np.float32]
    directions: NDArray[np.float32]
    tape: NDArray[np.float32]
    projection: NDArray[np.float32]
    cuts: NDArray[np.float32]

    @classmethod
    def make(cls, *, dims: int, bits: int, seed: int) -> Mixture:
        """Draw a mixture."""
        rng = np.random.default_rng(seed)
        sizes = 1 / np.arange(1, _CLASSES + 1)
        kinds = rng.standard_normal((_KINDS, _LATENT), np.float32)
        own = rng.standard_normal((_CLASSES, _LATENT), np.float32)
        shared = kinds[rng.integers(_KINDS, size=_CLASSES)]
        centres = np.float32(_ALIKE**0.5) * shared + np.float32((1 - _ALIKE) ** 0.5) * own
        offsets = rng.standard_normal((_CLASSES, _SUBCLUSTERS, _LATENT), np.float32)
        directions = rng.standard_normal((_LATENT, dims), np.float32) / np.float32(_LATENT**0.5)
        tape = rng.standard_normal(_TAPE + dims, np.float32) * np.float32(_FINE)
        seen = directions[_UNSEEN:]
        turned = seen.T @ rng.standard_normal((len(seen), bits), np.float32)
        made = cls(
            shares=np.cumsum(sizes) / sizes.sum(),
            centres=centres[:, None] + np.float32(_SUB_SPREAD) * offsets,
            directions=directions,
            tape=tape,
            projection=turned.astype(np.float32),
            cuts=np.zeros(bits, np.float32),
        )
        sample = made.features(made.places(rng, _EXAMPLES), np.arange(_EXAMPLES))
        made.cuts[:] = np.median(sample @ made.projection, axis=0)
        return made

    @property
    def dims(self) -> int:
        """D."""
        return int(self.directions.shape[1])

    @property
    def made_of(self) -> str:
        """What the images are, for the reader of figures."""
        classes, subs, latent = self.centres.shape
        return MADE_OF.format(classes=classes, kinds=_KINDS, subs=subs, latent=latent, tape=_TAPE)

    def places(self, rng: np.random.Generator, count: int) -> NDArray[np.float16]:
        """Draw the places z of images, shape=(count, L), dtype=float16."""
        classes, subs, latent = self.centres.shape
        chosen = np.searchsorted(self.shares, rng.random(count)).clip(max=classes - 1)
        spreads = _SPREAD * np.arange(1, latent + 1, dtype=np.float32) ** -0.5
        noise = rng.standard_normal((count, latent), np.float32) * spreads
        middles = self.centres[chosen, rng.integers(subs, size=count)]
        places: NDArray[np.float16] = (middles + noise).astype(np.float16)
        return places

    def features(self, places: NDArray[np.float16], rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features of images.

        Args:
            places: shape=(N, L), dtype=float16.
            rows: Numbers of the images, which choose the noise, shape=(N,).

        Returns:
            shape=(N, D), dtype=float32, not negative.
        """
        features: NDArray[np.float32] = places.astype(np.float32) @ self.directions
        stretches = np.lib.stride_tricks.sliding_window_view(self.tape, self.dims)
        features += stretches[(rows.astype(np.uint64) * np.uint64(_STRIDE)) >> np.uint64(44)]
        features += np.float32(_BIAS)
        np.maximum(features, 0, out=features)
        return features

    def codes(self, projected: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Cut projected features, shape=(N, B), into packed codes, shape=(N, ceil(B/8))."""
        return np.packbits(projected > self.cuts, axis=1)


def ids_of(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ids that look like digests and tell the row, shape=(N, 16), dtype=uint8."""
    halves = np.stack([rows.astype(np.uint64) * np.uint64(_STRIDE), rows.astype(np.uint64)], 1)
    return halves.astype(">u8").view(np.uint8)


def rows_of(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Undo `ids_of`."""
    return np.ascontiguousarray(ids[:, 8:]).view(">u8")[:, 0].astype(np.int64)


def images_of(
    rows: NDArray[Any], codes: NDArray[np.uint8], features: NDArray[np.float32]
) -> Sequence[NewImage]:
    """Return images to be stored."""
    return [
        NewImage(
            id=identity.tobytes().hex(),
            code=code,
            feature=feature,
            source=f"/photos/{row:09}.jpg",
            origin=f"synthetic:{row}",
            added_at=1.7e9 + row,
            width_px=640,
            height_px=480,
            format="JPEG",
            size_bytes=100_000,
        )
        for row, identity, code, feature in zip(
            rows.tolist(), ids_of(rows), codes, features, strict=True
        )
    ]
