"""Bilinear resizing without antialiasing, as OpenCV does it and thereby Caffe's tools.

Caffe's own resizing (`convert_imageset`, ImageData layers, `cpp_classification`) is OpenCV's
`cv::resize` with INTER_LINEAR: each new pixel is made of the four old ones around its centre,
however much the picture shrinks. Networks were trained on pictures with that aliasing, so a
smoother picture is another input. OpenCV computes on 8 bits with weights of 1/2048, and so does
this; the tests compare with the formula in floating point.
"""

import numpy as np
from numpy.typing import NDArray

_ONE = 2048  # weights are whole numbers of 1/2048


def resize_crop(
    pixels: NDArray[np.uint8], *, width: int, height: int, left: int, top: int, side: int
) -> NDArray[np.uint8]:
    """Resize a picture and cut a square out; only the square is computed.

    Args:
        pixels: shape=(H, W, 3), dtype=uint8.
        width: Of the resized picture, in pixels.
        height: Of the resized picture, in pixels.
        left: Column of the resized picture that the square begins at.
        top: Row that it begins at.
        side: Of the square; it must lie inside the resized picture.

    Returns:
        shape=(side, side, 3), dtype=uint8.
    """
    upper, lower, down = _neighbours(pixels.shape[0], height, top, side)
    above, below = (_across(pixels[rows], width, left, side) for rows in (upper, lower))
    # The shifts are OpenCV's: 4 bits go before the product and 16 after, so that it fits 32.
    above = ((above >> 4) * down[0, :, None]) >> 16
    below = ((below >> 4) * down[1, :, None]) >> 16
    square: NDArray[np.uint8] = ((above + below + 2) >> 2).astype(np.uint8)
    return square.reshape(side, side, 3)


def _across(rows: NDArray[np.uint8], width: int, left: int, side: int) -> NDArray[np.int32]:
    """Blend columns: (side, W, 3) to (side, 3 * side) in units of 1/2048."""
    before, after, weights = _neighbours(rows.shape[1], width, left, side)
    # Three values of each pixel in a flat row: gathering is several times faster than by pixel.
    flat, channels = rows.reshape(side, -1), np.arange(3)
    first, second = ((3 * column[:, None] + channels).ravel() for column in (before, after))
    one, two = weights.repeat(3, axis=1)
    blended: NDArray[np.int32] = flat[:, first] * one + flat[:, second] * two
    return blended


def _neighbours(
    old: int, new: int, start: int, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """Return the old pixels on both sides of each new one, and their weights (2, count)."""
    centres = ((np.arange(start, start + count) + 0.5) * (old / new) - 0.5).astype(np.float32)
    below = np.floor(centres)
    share = centres - below
    weights = np.rint(np.stack([1 - share, share]) * _ONE).astype(np.int32)
    first = below.astype(np.intp)
    # The picture's edge goes on outside it.
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), weights
