import io

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.images import upright_rgb


def gradient() -> Image.Image:
    """A picture in which no two of its corners are alike."""
    across, down = np.meshgrid(np.arange(12), np.arange(9))
    return Image.fromarray(np.stack([across * 20, down * 25, across + down], 2).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return Image.open(buffer)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode_becomes_rgb_of_the_same_size(mode: str) -> None:
    source = gradient().convert("RGBA") if mode in ("RGBa", "PA") else gradient()
    if mode == "PA":
        source = source.convert("P")
    upright = upright_rgb(source.convert(mode))
    assert (upright.mode, upright.size) == ("RGB", (12, 9))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_turned_by_exif_looks_like_the_upright_one(orientation: int) -> None:
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = gradient()
    if orientation in inverse:
        turned = turned.transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(turned, "PNG", exif=exif)
    assert np.array_equal(np.asarray(upright_rgb(file)), np.asarray(gradient()))


def test_broken_exif_leaves_the_picture_as_it_is() -> None:
    file = saved(gradient(), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        upright = upright_rgb(file)
    assert np.array_equal(np.asarray(upright), np.asarray(gradient()))


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (3, 3), (10, 20, 30, 0))
    half = Image.new("LA", (3, 3), (0, 128))
    keyed = saved(Image.new("RGB", (3, 3), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert upright_rgb(clear).getpixel((1, 1)) == (255, 255, 255)
    assert upright_rgb(half).getpixel((1, 1)) == (127, 127, 127)
    assert upright_rgb(keyed).getpixel((1, 1)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.putpixel((0, 0), 1)
    upright = upright_rgb(saved(palette, "GIF", transparency=0))
    assert upright.getpixel((3, 3)) == (255, 255, 255)
    assert upright.getpixel((0, 0)) == (0, 200, 0)


def test_16_bit_grey_keeps_its_brightness() -> None:
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    upright = upright_rgb(saved(Image.fromarray(values), "PNG"))
    assert np.array_equal(np.asarray(upright)[..., 0], values // 257)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_values_without_a_known_range_are_stretched(dtype: type) -> None:
    values = np.array([[-1000, 0], [500, 1000]], dtype)
    upright = np.asarray(upright_rgb(Image.fromarray(values)))[..., 0]
    assert upright.tolist() == [[0, 127], [191, 255]]


def test_a_flat_float_picture_is_black_and_not_an_error() -> None:
    flat = np.full((3, 3), np.nan, np.float32)
    assert not np.asarray(upright_rgb(Image.fromarray(flat))).any()


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "lime", "blue")]
    file = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    file.seek(2)
    assert upright_rgb(file).getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_a_file_that_ends_early_is_an_image_error(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    cut = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    with pytest.raises(ImageError, match="cannot be read"), Image.open(io.BytesIO(cut)) as image:
        upright_rgb(image)
