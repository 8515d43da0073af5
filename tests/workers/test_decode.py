"""Every kind of image file, good and bad: what comes out, and what people are told."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.preprocess import Preprocess
from tests.workers.pictures import picture
from workers.decode import (
    THUMBNAIL_MAX_PX,
    THUMBNAIL_PX,
    Decoded,
    Limits,
    decode,
    image_id_of,
    read_file,
)
from workers.errors import Failed, Rejected, TooLarge, WorkerError

PREPROCESS = Preprocess(
    input_px=16,
    resize_px=18,
    resize_rule="short-side",
    resample="bicubic",
    channel_order="RGB",
    mean=(127.0, 127.0, 127.0),
    scale=1 / 128,
)
LIMITS = Limits(max_bytes=1 << 20, max_pixels=10_000_000)
ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def decoded(data: bytes, limits: Limits = LIMITS) -> tuple[Decoded, Image.Image]:
    """Decode, check what is always so, and return the image and its thumbnail."""
    result, thumbnail = decode(data, label="a.jpg", preprocess=PREPROCESS, limits=limits)
    assert result.pixels.shape == (16, 16, 3)
    assert result.pixels.dtype == np.uint8
    assert result.size_bytes == len(data)
    assert result.id == image_id_of(data)
    small = Image.open(io.BytesIO(thumbnail))
    assert (small.format, small.mode) == ("JPEG", "RGB")
    assert max(small.size) <= THUMBNAIL_MAX_PX
    return result, small


def refused(data: bytes, limits: Limits = LIMITS) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode(data, label="a.jpg", preprocess=PREPROCESS, limits=limits)
    assert caught.value.message.startswith("a.jpg ")
    assert caught.value.remedy.endswith(".")
    return caught.value


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises much and holds nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# -- good files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file_format",
    ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "TGA", "ICO", "DIB"],
)
def test_every_supported_format_is_known_by_its_content(file_format: str) -> None:
    result, _ = decoded(encoded(picture(1, side_px=64), file_format))
    assert result.format == file_format
    assert (result.width_px, result.height_px) == (64, 64)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "I;16", "F"])
def test_every_colour_mode_shows_the_same_picture(mode: str) -> None:
    grey = picture(2).convert("L")
    plain, _ = decoded(encoded(grey, "PNG"))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert(mode)
    result, _ = decoded(encoded(image, "TIFF"))
    tolerance = 30 if mode == "F" else 4  # such a file does not say where black and white are
    assert np.abs(result.pixels.astype(int) - plain.pixels).mean() < tolerance


def test_black_and_white_stay_what_they_are() -> None:
    image = Image.new("1", (40, 40), 1)
    image.paste(0, (0, 0, 40, 20))
    result, _ = decoded(encoded(image, "PNG"))
    assert (result.pixels[2].max(), result.pixels[13].min()) == (0, 255)


def test_a_stereo_photograph_is_its_first_picture() -> None:
    other = Image.new("RGB", (64, 64))
    data = encoded(picture(1, side_px=64), "MPO", save_all=True, append_images=[other])
    result, _ = decoded(data)
    assert (result.format, result.width_px) == ("MPO", 64)
    assert result.pixels.any()


def test_what_is_transparent_becomes_white() -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    result, thumbnail = decoded(encoded(image, "PNG"))
    assert result.pixels.min() == 255
    assert thumbnail.getpixel((20, 20)) == (255, 255, 255)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    result, _ = decoded(data)
    assert result.pixels[8, 8].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(40, 20), (1_400, 700), (1_280, 1_279), (1_281, 1_280)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(size: tuple[int, int], orientation: int) -> None:
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    result, thumbnail = decoded(encoded(image, "JPEG", exif=exif))
    expected = size[::-1] if orientation in TURNED else size
    assert (result.width_px, result.height_px) == expected
    if size[0] == 2 * size[1]:
        assert (thumbnail.width > thumbnail.height) == (expected[0] > expected[1])


@pytest.mark.parametrize("side", [1, 2, 639, 1_279, 1_280, 2_561, 3_000])
def test_decoding_at_a_reduced_size_does_not_change_the_reported_one(side: int) -> None:
    image = Image.new("RGB", (side, side + 1), "teal")
    result, _ = decoded(encoded(image, "JPEG"))
    assert (result.width_px, result.height_px) == (side, side + 1)


def test_a_reduced_jpeg_looks_like_the_whole_one() -> None:
    image = picture(3, side_px=2_000)
    reduced, _ = decoded(encoded(image, "JPEG", quality=95))
    whole, _ = decoded(encoded(image, "PNG"), Limits(1 << 26, 10_000_000))
    assert np.abs(reduced.pixels.astype(int) - whole.pixels).mean() < 3


def test_a_jpeg_whose_single_pixels_count_is_not_reduced() -> None:
    # Noise, because what is smooth looks alike at any size.
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 2600, 3), np.uint8)
    data = encoded(Image.fromarray(pixels), "JPEG", quality=30)
    sampled = dataclasses.replace(PREPROCESS, resample="bilinear-point", resize_rule="stretch")
    result, _ = decode(
        data, label="a.jpg", preprocess=sampled, limits=Limits(1 << 24, LIMITS.max_pixels)
    )
    with Image.open(io.BytesIO(data)) as whole:
        assert np.array_equal(result.pixels, sampled.pixels(whole.convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 5_000), (5_000, 1), (2, 3)])
def test_extreme_shapes_are_decoded(size: tuple[int, int]) -> None:
    result, _ = decoded(encoded(Image.new("RGB", size), "PNG"))
    assert (result.width_px, result.height_px) == size


def test_an_icon_that_holds_a_larger_picture_than_it_says_reports_the_real_size() -> None:
    inner = encoded(Image.new("RGB", (50, 40)), "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    result, _ = decoded(struct.pack("<HHH", 0, 1, 1) + entry + inner)
    assert (result.width_px, result.height_px) == (50, 40)


def test_broken_exif_data_does_not_spoil_a_picture() -> None:
    data = encoded(picture(4), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    decoded(data)


def test_the_id_is_of_the_bytes() -> None:
    first, second = encoded(picture(5), "PNG"), encoded(picture(5), "BMP")
    assert len(image_id_of(first)) == 32
    assert image_id_of(first) != image_id_of(second)


# -- bad files -------------------------------------------------------------------------------

UNSUPPORTED = {
    "pdf": b"%PDF-1.7\n1 0 obj",
    "svg": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "bare svg": b"<svg width='1'/>",
    "photoshop": b"8BPS\0\1" + bytes(100),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "webm": b"\x1a\x45\xdf\xa3" + bytes(100),
    "jxl": b"\xff\x0a" + bytes(100),
}
HTML = {
    "doctype": b"<!DOCTYPE html><title>x</title>",
    "space": b"\r\n  <html lang=en>",
    "byte order mark": b"\xef\xbb\xbf<!doctype html>",
    "comment": b"<!-- cached --><html><body><svg></svg>",
    "xhtml": b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x"><html>',
}
NOT_IMAGES = {
    "text": b"Dear Sir or Madam, please find attached",
    "zeros": bytes(5_000),
    "one byte": b"\xff",
    "utf-16": "hello\nthere".encode("utf-16"),
    "json": b'{"error": "not found"}',
    "video": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(100),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_named(name: str) -> None:
    error = refused(UNSUPPORTED[name])
    assert error.code == "unsupported_format"
    assert "Convert it to one of: JPEG" in error.remedy


@pytest.mark.parametrize("name", HTML)
def test_a_web_page_is_named_as_one(name: str) -> None:
    error = refused(HTML[name])
    assert error.code == "html_not_image"
    assert "crawl" in error.remedy


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image_is_said_to_be_none(name: str) -> None:
    assert refused(NOT_IMAGES[name]).code == "not_an_image"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_a_truncated_file_is_refused(file_format: str) -> None:
    data = encoded(picture(6), file_format)
    assert refused(data[: len(data) // 2]).code in ("truncated", "damaged", "not_an_image")


def test_a_cut_jpeg_is_called_truncated() -> None:
    data = encoded(picture(6), "JPEG")
    error = refused(data[: len(data) * 2 // 3])
    assert error.code == "truncated"
    assert "again" in error.remedy


@pytest.mark.parametrize("side", [50_000, 3_163, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    data = png_header(side, side)
    assert len(data) < 100
    error = refused(data)
    assert isinstance(error, TooLarge)
    assert error.code == "too_many_pixels"
    assert "10,000,000 pixels" in error.message
    assert "LOOKALIKE_MAX_IMAGE_PIXELS" in error.remedy


def test_an_image_of_just_the_limit_is_taken() -> None:
    data = encoded(Image.new("1", (100, 100)), "PNG")
    decoded(data, Limits(1 << 20, 10_000))
    assert refused(data, Limits(1 << 20, 9_999)).code == "too_many_pixels"


def test_a_bomb_inside_an_icon_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # as in a decoding child
    inner = encoded(Image.new("1", (500, 500)), "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22)
    data = struct.pack("<HHH", 0, 1, 1) + entry + inner
    assert refused(data, Limits(1 << 20, 10_000)).code == "too_many_pixels"


SAMPLES = {
    name: encoded(picture(7, side_px=40), name)
    for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "TGA", "ICO")
}


@pytest.mark.parametrize("file_format", SAMPLES)
@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_damage_of_any_kind_is_refused_or_shown_but_never_a_crash(
    file_format: str, data: st.DataObject
) -> None:
    whole = SAMPLES[file_format]
    kept = data.draw(st.integers(0, len(whole)), label="kept")
    flips = data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6),
        label="flips",
    )
    broken = bytearray(whole)
    for place, value in flips:
        broken[place] = value
    with suppress(Rejected):
        decoded(bytes(broken[:kept]), Limits(1 << 20, 1_000_000))


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_noise_is_refused_or_shown_but_never_a_crash(noise: bytes) -> None:
    with suppress(Rejected):
        decoded(noise, Limits(1 << 20, 1_000_000))


# -- reading ---------------------------------------------------------------------------------


def read(path: Path, max_bytes: int = 100) -> bytes:
    return read_file(path, max_bytes=max_bytes, label=path.name)


def unreadable(path: Path) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        read(path)
    assert caught.value.message.startswith(path.name)
    assert caught.value.remedy
    return caught.value


def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 100)
    assert read(path) == b"x" * 100
    path.write_bytes(b"x" * 101)
    error = unreadable(path)
    assert isinstance(error, TooLarge)
    assert error.code == "too_many_bytes"
    assert "LOOKALIKE_MAX_IMAGE_BYTES" in error.remedy


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.touch()
    error = unreadable(path)
    assert isinstance(error, Rejected)
    assert error.code == "empty"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = unreadable(tmp_path / "a.jpg")
    assert isinstance(error, Failed)
    assert error.code == "file_missing"


def test_a_folder_a_pipe_and_a_device_are_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe, Path("/dev/zero")):
        assert unreadable(path).code == "unreadable"


def test_a_link_that_leads_to_itself_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.symlink_to(path)
    assert unreadable(path).code == "unreadable"


def test_a_file_without_permission_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    error = unreadable(tmp_path / "a.jpg")
    assert error.code == "unreadable"
    assert "Permission denied" in error.message


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((THUMBNAIL_MAX_PX, 30), (THUMBNAIL_MAX_PX, 30)),
        ((THUMBNAIL_MAX_PX * 2, 100), (THUMBNAIL_PX, 40)),
        ((3, THUMBNAIL_MAX_PX * 2), (1, THUMBNAIL_PX)),
    ],
)
def test_a_thumbnail_is_smaller_only_where_it_pays(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    _, thumbnail = decoded(encoded(Image.new("RGB", size), "PNG"))
    assert thumbnail.size == expected
