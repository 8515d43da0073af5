"""Opens picture files that strangers may have made."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from models.errors import ImageError
from models.images import upright_rgb

# Those that Pillow reads by itself: PostScript would start a program.
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "PPM", "TGA", "ICO")
FORMATS = (*_COMMON, "JPEG2000", "PCX", "QOI", "SGI")
MAX_PIXELS = 120_000_000


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS, min_side_px: int = 0) -> Image.Image:
    """Read a picture as a person sees it.

    Args:
        path: The file.
        max_pixels: A picture with more is refused before anything is decoded.
        min_side_px: If positive, a JPEG may be decoded at a half, a quarter or an eighth of its
            size, as long as both sides keep twice this.

    Returns:
        An image of mode `RGB`.

    Raises:
        ImageError: There is no such file, it is no picture, it is cut, or it is too large.
    """
    if not path.is_file():
        # Opening a named pipe would wait for its writer for ever.
        raise ImageError("there is no such file; correct the path")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ImageError(f"{image.width} x {image.height} pixels are too many; shrink it")
            if min_side_px:
                image.draft("RGB", (2 * min_side_px, 2 * min_side_px))
            return upright_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not a picture of a known format; delete or replace it") from error
    except OSError as error:
        raise ImageError(f"{error.strerror or error}; check the file") from error
    # The readers of formats raise whatever hostile bytes lead them to.
    except Exception as error:
        raise ImageError(f"the picture cannot be read: {error}; delete or replace it") from error


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep Pillow from warning of odd files. Not for threads: it changes the whole process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield
