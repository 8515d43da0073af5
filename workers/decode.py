"""One image file in, one :class:`Decoded` out; every kind of bad file has its named error.

This runs in child processes that may be killed (see :mod:`workers.decoders`): decoders of image
formats are the part of the system most exposed to hostile bytes.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from models.images import upright_rgb
from models.preprocess import Preprocess
from workers.errors import Failed, Rejected, TooLarge
from workers.files import empty_file, too_many_bytes

# The JPEG reader opens MPO too.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "TGA", "ICO", "DIB")
THUMBNAIL_PX = 320
# Up to here a thumbnail keeps the picture's size: making it a little smaller takes longer than
# decoding it, and saves next to nothing.
THUMBNAIL_MAX_PX = 400
ID_BYTES = 16
_TURNED = (5, 6, 7, 8)  # EXIF orientations by a quarter of a turn

# Leading bytes of files that people do hand in and that are not decoded here.
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"II*\x00\x10\x00\x00\x00CR", "a Canon raw file"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
)
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")


@dataclass(frozen=True)
class Limits:
    """What a file may cost: bytes on disk and pixels once decoded."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True)
class Decoded:
    """An image ready for the network.

    Attributes:
        id: See :func:`image_id_of`.
        format: Pillow's name of the format, found from the content.
        pixels: shape=(H, W, 3), dtype=uint8, as the bundle's preprocessing has it.
    """

    id: str
    width_px: int
    height_px: int
    format: str
    size_bytes: int
    pixels: NDArray[np.uint8]


def read_file(path: Path, *, max_bytes: int, label: str) -> bytes:
    """Read a regular file that is not over the limit.

    Raises:
        Failed: It is missing, unreadable, or not a regular file.
        Rejected: It is empty or too large.
    """
    try:
        # Opening a named pipe would wait for its writer for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Failed(
                    f"{label} is not a regular file.",
                    remedy="Give the path of an image file.",
                    code="unreadable",
                )
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise Failed(
            f"{label} does not exist.",
            remedy="It may have been moved since the folder was listed; start the job again.",
            code="file_missing",
        ) from error
    except OSError as error:
        raise Failed(
            f"{label} cannot be read: {error.strerror}.",
            remedy="Give the worker permission to read it.",
            code="unreadable",
        ) from error
    if len(data) > max_bytes:
        raise too_many_bytes(label, max_bytes)
    if not data:
        raise empty_file(label)
    return data


def image_id_of(data: bytes) -> str:
    """Return an image's id: the first 16 bytes of the file's sha256, as 32 hex digits."""
    return hashlib.sha256(data).digest()[:ID_BYTES].hex()


def decode(
    data: bytes, *, label: str, preprocess: Preprocess, limits: Limits
) -> tuple[Decoded, bytes]:
    """Decode one image.

    Args:
        data: The file's bytes; the format is found from them, never from a name.
        label: What to call it in an error.
        preprocess: The bundle's preprocessing.
        limits: Only ``max_pixels`` is used here.

    Returns:
        The image, and its thumbnail as JPEG.

    Raises:
        Rejected: It is not an image, damaged, truncated, or of an unsupported format.
        TooLarge: It has too many pixels; found from the header, before anything is decoded.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of what is odd about a file; here it is either decoded or refused.
            warnings.simplefilter("ignore")
            with _open(data, label, limits) as image:
                return _decode(image, data, preprocess)
    except Rejected:
        raise
    except Exception as error:
        # The readers of formats raise whatever hostile bytes lead them to.
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise _too_many_pixels(label, limits) from error
        raise _damaged(label, error) from error


def _decode(image: Image.Image, data: bytes, preprocess: Preprocess) -> tuple[Decoded, bytes]:
    whole_size = image.size
    # A JPEG can be decoded at 1/2, 1/4 or 1/8 for much less work. Twice the size that is
    # needed leaves the rest of the way down to a proper filter.
    wanted = 2 * max(preprocess.min_side_px, THUMBNAIL_PX)
    reduced = image.draft("RGB", (wanted, wanted)) is not None
    rgb = upright_rgb(image)
    width_px, height_px = rgb.size
    if reduced:
        width_px, height_px = reversed(whole_size) if _is_turned(image) else whole_size
    decoded = Decoded(
        id=image_id_of(data),
        width_px=width_px,
        height_px=height_px,
        format=image.format or "",
        size_bytes=len(data),
        pixels=preprocess.pixels(rgb),
    )
    return decoded, _thumbnail(rgb)


def _open(data: bytes, label: str, limits: Limits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(label, limits) from error
    except UnidentifiedImageError as error:
        raise _unidentified(data, label) from error
    if image.width * image.height > limits.max_pixels:
        raise _too_many_pixels(label, limits)
    return image


def _is_turned(image: Image.Image) -> bool:
    """Return whether the EXIF orientation makes width out of height."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception:  # noqa: BLE001 - EXIF data that cannot be read turns nothing
        return False


def _thumbnail(rgb: Image.Image) -> bytes:
    out = io.BytesIO()
    _small(rgb).save(out, "JPEG", quality=80)
    return out.getvalue()


def _small(rgb: Image.Image) -> Image.Image:
    longest = max(rgb.size)
    if longest <= THUMBNAIL_MAX_PX:
        return rgb
    size = [max(1, round(side * THUMBNAIL_PX / longest)) for side in rgb.size]
    # Hamming's filter is nearly as sharp as the bicubic one, for two thirds of the time.
    return rgb.resize((size[0], size[1]), Image.Resampling.HAMMING, reducing_gap=2.0)


def _too_many_pixels(label: str, limits: Limits) -> TooLarge:
    return TooLarge(
        f"{label} has more than {limits.max_pixels:,} pixels.",
        remedy="Shrink it, or raise LOOKALIKE_MAX_IMAGE_PIXELS.",
        code="too_many_pixels",
    )


def _damaged(label: str, error: Exception) -> Rejected:
    if isinstance(error, MemoryError):
        return TooLarge(
            f"{label} needs more memory to decode than a decoder may have.",
            remedy="Shrink it, or raise LOOKALIKE_DECODE_MEMORY_BYTES.",
            code="too_much_memory",
        )
    text = str(error) or type(error).__name__
    code = "truncated" if "truncated" in text.lower() else "damaged"
    return Rejected(f"{label} is {code}: {text}.", remedy="Save or download it again.", code=code)


def _unidentified(data: bytes, label: str) -> Rejected:
    head = data[:512].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if head.startswith(_HTML) or b"<html" in head:
        return Rejected(
            f"{label} is an HTML page, not an image.",
            remedy="Use the address of the image itself, or start a crawl of the page.",
            code="html_not_image",
        )
    named = [name for magic, name in _OTHERS if data.startswith(magic)]
    if b"<svg" in head:
        named = ["an SVG drawing"]
    if data[4:12] in _HEIC:
        named = ["a HEIC image"]
    if named:
        return Rejected(
            f"{label} is {named[0]}, which is not supported.",
            remedy=f"Convert it to one of: {', '.join(FORMATS)}.",
            code="unsupported_format",
        )
    return Rejected(
        f"{label} is not an image.",
        remedy=f"Supported are: {', '.join(FORMATS)}.",
        code="not_an_image",
    )
