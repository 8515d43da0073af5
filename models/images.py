"""Any picture that Pillow opens, as upright 8-bit RGB."""

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from models.errors import ImageError

# What Pillow's readers raise on files that end early or contradict themselves.
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)

# EXIF orientation -> what turns the picture upright (Exif 2.32, section 4.6.4, tag 274).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return the picture as a person sees it, in 8-bit RGB.

    The first frame of an animation, turned as its EXIF orientation says, transparency laid on
    white; grey, palette, CMYK, YCbCr, Lab and 16-bit pictures converted.

    Args:
        image: An opened image; its pixels are read here if they were not before.

    Returns:
        An image of mode `RGB`; `image` itself is left open.

    Raises:
        ImageError: The file ends early, or its pixels cannot be converted.
    """
    try:
        if getattr(image, "n_frames", 1) > 1:
            image.seek(0)
        image.load()
        picture = _opaque(_eight_bit(image))
        turn = _UPRIGHT.get(_orientation(image))
        return picture if turn is None else picture.transpose(turn)
    except _UNREADABLE as error:
        raise ImageError(f"the picture cannot be read: {error}; the file may be cut") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (*_UNREADABLE, TypeError):
        # Broken EXIF data says nothing about the pixels, and viewers show such files too.
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring more than 8 bits per value down to 8."""
    if image.mode.startswith("I;16"):
        # From 0..65535 to 0..255 exactly; Pillow's own conversion clips at 255.
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(image, np.float64)))
    return image


def _stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Map the smallest value to 0 and the largest to 255: such files do not say their range."""
    finite = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    scaled = (finite - low) * (255 / (high - low or 1.0))
    return scaled.astype(np.uint8)


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
