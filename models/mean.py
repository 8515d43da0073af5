"""The mean that a network wants taken from its pictures: a value for each channel, or an image."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.caffe.weights import read_mean
from models.errors import BundleError, OptionError

Values = tuple[float, float, float]
Mean = Values | NDArray[np.float32]
"""Three values, or an image of shape (3, H, W) and dtype float32; channels as the network's."""


def read_any_mean(text: str, *, by_channel: bool = False) -> Mean:
    """Read a mean from what the user gave.

    Args:
        text: One number for all channels, three with commas between, or the path of a `.npy` or
            `.binaryproto` file.
        by_channel: Take the mean of each channel of an image.

    Raises:
        OptionError: It is neither numbers nor a file.
        WeightsError: The file cannot be read.
    """
    numbers = _numbers(text)
    if numbers is not None:
        if len(numbers) != 3 or not np.isfinite(numbers).all():
            raise OptionError(
                f"--mean {text} is not one or three finite numbers, such as 104,117,123"
            )
        first, second, third = numbers
        return first, second, third
    path = Path(text)
    if not path.is_file():
        raise OptionError(
            f"--mean {text} is neither a file nor numbers; correct the path, or give three "
            "numbers such as 104,117,123"
        )
    values = read_mean(path)
    if values.ndim == 3 and not by_channel:
        return values
    return by_channels(values)


def by_channels(values: NDArray[np.float32]) -> Values:
    """Return the means of the channels of shape (3, ...)."""
    first, second, third = values.reshape(3, -1).mean(axis=1, dtype=np.float64)
    return float(first), float(second), float(third)


def cropped(
    mean: Mean, *, resize_px: int, input_px: int
) -> tuple[Values, NDArray[np.float32] | None]:
    """Cut a mean image to the network's input, where Caffe cuts the picture.

    Args:
        mean: Three values or an image.
        resize_px: Side of the picture before the crop.
        input_px: Side of the network's input.

    Returns:
        The means of the channels, and the image, shape=(3, input_px, input_px), if it is one.

    Raises:
        BundleError: The image is as large as neither of the two.
    """
    if isinstance(mean, tuple):
        return mean, None
    height, width = mean.shape[1:]
    if height != width or height not in (resize_px, input_px):
        raise BundleError(
            f"the mean image has {height} x {width} pixels, and pictures {resize_px} before the "
            f"crop and {input_px} after it; correct --resize, or take its channels' means with "
            "--mean-by-channel"
        )
    start = (height - input_px) // 2
    inside = slice(start, start + input_px)
    image = np.ascontiguousarray(mean[:, inside, inside], np.float32)
    return by_channels(image), image


def read_deviation(text: str) -> Values:
    """Read what each channel is divided by: one number for all, or three.

    Raises:
        OptionError: It is neither, or a number is not positive and finite.
    """
    numbers = _numbers(text) or []
    if len(numbers) != 3 or not all(map(is_factor, numbers)):
        raise OptionError(
            f"--std {text} is not one or three positive finite numbers, such as 58.4,57.1,57.4"
        )
    first, second, third = numbers
    return first, second, third


def is_factor(number: float) -> bool:
    """Tell whether a number is positive and finite, as float32 too."""
    limits = np.finfo(np.float32)
    return float(limits.tiny) <= number <= float(limits.max)


def _numbers(text: str) -> list[float] | None:
    """Return numbers with commas between, a single one thrice; None where they are no numbers."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers * 3 if len(numbers) == 1 else numbers
