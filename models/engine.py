"""What runs a network: pixels in, features and codes out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.errors import EngineError

# Images per run: few, because the largest layer of EfficientNet-Lite0 alone takes 5 MB an image,
# and what does not fit the cache of the processor costs a fifth of the speed. More where weights
# are so large (CaffeNet's 240 MB) that reading them takes most of the time: see
# docs/performance.md.
_CHUNK, _LARGE_CHUNK = 4, 16
_LARGE_BYTES = 128 << 20


@dataclass(frozen=True)
class Embedding:
    """What a network says about N images.

    Attributes:
        features: shape=(N, D), dtype=float32; compared by the bundle's metric.
        latent: shape=(N, B), dtype=float32; before the threshold.
        codes: shape=(N, ceil(B/8)), dtype=uint8; bit 0 is the highest bit of byte 0
            (`numpy.packbits`), what is left over in the last byte is 0.
    """

    features: NDArray[np.float32]
    latent: NDArray[np.float32]
    codes: NDArray[np.uint8]


class Engine(ABC):
    """A network ready to run. Safe to share between threads; a context manager."""

    def __init__(self, bundle: Bundle, weights: Path) -> None:
        """Prepare for a bundle, one of whose files holds the network's weights."""
        self.bundle = bundle
        large = weights.is_file() and weights.stat().st_size >= _LARGE_BYTES
        self._chunk = _LARGE_CHUNK if large else _CHUNK

    def embed(self, pixels: NDArray[np.uint8]) -> Embedding:
        """Run the network; an image's numbers do not depend on the others beside it.

        With ONNX Runtime not one bit of them does; Caffe's differ by rounding, about 1e-5.

        Args:
            pixels: shape=(N, input_px, input_px, 3), dtype=uint8, RGB, as
                `bundle.preprocess.pixels` makes them. N may be 0.

        Raises:
            ValueError: `pixels` has another shape or dtype.
            EngineError: The engine is closed, or the network failed or gave numbers that are
                not finite.
        """
        features = np.empty((len(pixels), self.bundle.dims), np.float32)
        latent = np.empty((len(pixels), self.bundle.bits), np.float32)
        # Not range(0): wrong shapes are refused even when there is nothing to run.
        for start in range(0, len(pixels) or 1, self._chunk):
            part = slice(start, start + self._chunk)
            planes = self.bundle.preprocess.normalise(pixels[part])
            features[part], latent[part] = self._run(planes)
        if not (np.isfinite(features).all() and np.isfinite(latent).all()):
            raise EngineError(
                f"the network of bundle {self.bundle.name} gave numbers that are not finite; "
                "its weights or its mean and scale are wrong"
            )
        codes = np.packbits(latent > self.bundle.code_threshold, axis=1)
        return Embedding(features, latent, codes)

    @abstractmethod
    def _run(self, planes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Map (N, 3, input_px, input_px) to features (N, D) and latent values (N, B)."""

    @abstractmethod
    def close(self) -> None:
        """Free the network. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
