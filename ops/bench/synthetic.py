"""Made-up images with the shape of real ones: clustered features, and codes that follow them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store import NewImage, StoreSpec

_CLUSTER_IMAGES = 100
_SPREAD = 0.6  # of a cluster's images around its centre, the centres' own spread being 1
_CENTRES = 2_048
_EXAMPLES_PER_CENTRE = 4


@dataclass(frozen=True)
class World:
    """A distribution of images.

    Attributes:
        clusters: Centres of the features, shape=(C, D), dtype=float32.
        projection: From features to what is cut into bits, shape=(D, B), dtype=float32.
    """

    clusters: NDArray[np.float32]
    projection: NDArray[np.float32]

    @classmethod
    def make(cls, rng: np.random.Generator, *, images: int, dims: int, bits: int) -> World:
        """Draw a world with about a hundred images to a cluster."""
        count = max(2, images // _CLUSTER_IMAGES)
        clusters = rng.standard_normal((count, dims), np.float32)
        return cls(clusters, rng.standard_normal((dims, bits), np.float32))

    def features(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draw features, shape=(count, D), dtype=float32; not negative, as behind a ReLU."""
        chosen = self.clusters[rng.integers(len(self.clusters), size=count)]
        noise = rng.standard_normal(chosen.shape, np.float32) * np.float32(_SPREAD)
        return np.maximum(chosen + noise, 0)

    def codes(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return packed codes, shape=(N, ceil(B/8)), dtype=uint8."""
        # The mean of the rectified features would shift every bit the same way.
        centred = features - features.mean(axis=1, keepdims=True)
        return np.packbits(centred @ self.projection > 0, axis=1)

    def spec(self, rng: np.random.Generator, *, images: int) -> StoreSpec:
        """Return the spec of a store for these images; long codes get centre codes."""
        dims, bits = self.projection.shape
        centres = None
        if bits > 24:
            count = min(_CENTRES, max(2, images // _EXAMPLES_PER_CENTRE))
            centres = np.unique(self.codes(self.features(rng, count)), axis=0)
        return StoreSpec(
            bundle_id=f"synthetic-{bits}", bits=bits, dims=dims, metric="cosine", centres=centres
        )

    def batches(
        self, rng: np.random.Generator, *, images: int, batch: int
    ) -> Iterator[list[NewImage]]:
        """Draw images to be stored, batch by batch."""
        for first in range(0, images, batch):
            features = self.features(rng, min(batch, images - first))
            rows = zip(self.codes(features), features, strict=True)
            yield [
                _image(first + place, code, feature) for place, (code, feature) in enumerate(rows)
            ]


def _image(number: int, code: NDArray[np.uint8], feature: NDArray[np.float32]) -> NewImage:
    return NewImage(
        id=f"{number:032x}",
        code=code,
        feature=feature,
        source=f"/photos/{number:09}.jpg",
        origin=f"synthetic:{number}",
        added_at=0.0,
        width_px=640,
        height_px=480,
        format="JPEG",
        size_bytes=100_000,
    )
