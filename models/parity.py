"""Do the two engines say the same about a bundle's network?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.engines import ENGINES, open_engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Bundle
    from models.engine import Embedding, Engine

FEATURE_TOLERANCE = 1e-3
"""Largest absolute difference of a feature's value that the design allows."""

NEAR_THRESHOLD = 1e-4
"""A bit may differ where both latent values are at most this far from the threshold."""

_WARM_UP = 8


@dataclass(frozen=True)
class Parity:
    """How two engines compare on the same N images.

    Attributes:
        images: N.
        max_abs_diff: Largest absolute difference of a feature's value.
        max_abs_diff_latent: The same of the latent values; 0 without a code layer.
        bits: Bits compared, N times B.
        bits_differing: Bits that are not the same.
        bits_near_threshold: Bits whose two latent values are both within `NEAR_THRESHOLD`.
        bits_wrong: Bits that differ and are not near the threshold.
        onnx_images_per_s: Speed of ONNX Runtime on these images.
        caffe_images_per_s: Speed of Caffe on these images.
    """

    images: int
    max_abs_diff: float
    max_abs_diff_latent: float
    bits: int
    bits_differing: int
    bits_near_threshold: int
    bits_wrong: int
    onnx_images_per_s: float
    caffe_images_per_s: float

    @property
    def within_tolerance(self) -> bool:
        """Whether the engines may stand for each other."""
        return self.max_abs_diff < FEATURE_TOLERANCE and not self.bits_wrong


def compare(
    bundle: Bundle,
    images: NDArray[np.uint8] | None = None,
    *,
    count: int,
    seed: int,
    threads: int = 1,
) -> Parity:
    """Run both engines on random pixels and on images, and compare what they say.

    Args:
        bundle: A bundle that has both forms, ONNX and Caffe.
        images: shape=(N, input_px, input_px, 3), dtype=uint8, as `bundle.preprocess.pixels`
            makes them, or None for random pixels alone.
        count: How many images of random pixels to put before them.
        seed: Seed of the random pixels.
        threads: How many threads each engine may use.

    Raises:
        ValueError: There is nothing to compare on, or `images` has another shape or dtype.
        BundleError: A form of the network is not what the bundle says.
        EngineError: The bundle has one form only, or an engine cannot be opened.
    """
    pixels = random_pixels(bundle, count=count, seed=seed)
    if images is not None:
        pixels = np.concatenate([pixels, images])
    if not len(pixels):
        raise ValueError("expected at least 1 image, random or not, got 0")
    runs = {name: _run(bundle, name, pixels, threads) for name in ENGINES}
    (onnx, onnx_s), (caffe, caffe_s) = runs["onnx"], runs["caffe"]
    return compared(
        onnx,
        caffe,
        threshold=bundle.code_threshold,
        speeds=(len(pixels) / onnx_s, len(pixels) / caffe_s),
    )


def random_pixels(bundle: Bundle, *, count: int, seed: int) -> NDArray[np.uint8]:
    """Return evenly distributed noise, shape=(count, input_px, input_px, 3), dtype=uint8."""
    side = bundle.preprocess.input_px
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def compared(
    onnx: Embedding, caffe: Embedding, *, threshold: float, speeds: tuple[float, float]
) -> Parity:
    """Compare what two engines said about the same images.

    Args:
        onnx: What ONNX Runtime said.
        caffe: What Caffe said.
        threshold: The bundle's `code_threshold`.
        speeds: Images a second of each.
    """
    bits = (onnx.latent > threshold, caffe.latent > threshold)
    differing = bits[0] != bits[1]
    far = np.maximum(abs(onnx.latent - threshold), abs(caffe.latent - threshold)) > NEAR_THRESHOLD
    return Parity(
        images=len(onnx.features),
        max_abs_diff=_largest(onnx.features - caffe.features),
        max_abs_diff_latent=_largest(onnx.latent - caffe.latent),
        bits=differing.size,
        bits_differing=int(differing.sum()),
        bits_near_threshold=int((~far).sum()),
        bits_wrong=int((differing & far).sum()),
        onnx_images_per_s=speeds[0],
        caffe_images_per_s=speeds[1],
    )


def _run(
    bundle: Bundle, name: str, pixels: NDArray[np.uint8], threads: int
) -> tuple[Embedding, float]:
    with open_engine(bundle, engine=name, threads=threads) as engine:
        return _timed(engine, pixels)


def _timed(engine: Engine, pixels: NDArray[np.uint8]) -> tuple[Embedding, float]:
    engine.embed(pixels[:_WARM_UP])  # the first run allocates
    begin = time.perf_counter()
    found = engine.embed(pixels)
    return found, time.perf_counter() - begin


def _largest(differences: NDArray[np.float32]) -> float:
    return float(abs(differences).max(initial=0.0))
