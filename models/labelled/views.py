"""Other versions of a picture: to learn from, and to measure how well codes keep."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

View = Callable[[Image.Image, np.random.Generator], Image.Image]
"""Makes another version of a picture of mode `RGB`."""


def unchanged(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Return the picture itself."""
    return image


def half_size(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Halve both sides."""
    size = (max(1, image.width // 2), max(1, image.height // 2))
    return image.resize(size, Image.Resampling.BICUBIC)


def quality_40(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Save as JPEG of quality 40."""
    return _recompressed(image, 40)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    """Cut a tenth off the left and off the top."""
    return image.crop((image.width // 10, image.height // 10, image.width, image.height))


def distorted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop to 60 to 100% of each side, mirror half of the time, shrink and recompress."""
    across, down = (round(side * rng.uniform(0.6, 1.0)) for side in image.size)
    left = int(rng.integers(image.width - across + 1))
    top = int(rng.integers(image.height - down + 1))
    image = image.crop((left, top, left + across, top + down))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    shrink = rng.uniform(0.5, 1.0)
    image = image.resize(
        (max(1, round(across * shrink)), max(1, round(down * shrink))), Image.Resampling.BICUBIC
    )
    return _recompressed(image, int(rng.integers(30, 96)))


def _recompressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)
