import hashlib
import pickle
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.opencv_resize import resize_crop
from models.preprocess import Preprocess


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def interpolated(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear without antialiasing, pixel by pixel along each axis, in floating point."""
    for axis, new in ((0, height), (1, width)):
        old = pixels.shape[axis]
        centres = (np.arange(new) + 0.5) * old / new - 0.5
        pixels = np.apply_along_axis(
            lambda line, c=centres, n=old: np.interp(c, np.arange(n), line), axis, pixels
        )
    return pixels


def transformed(pixels: np.ndarray, *, mean: np.ndarray, input_scale: float) -> np.ndarray:
    """What caffe.io.load_image and caffe.io.Transformer make of RGB pixels, step by step."""
    loaded = pixels.astype(np.float64) / 255  # load_image gives 0 to 1
    planes = loaded.transpose(2, 0, 1)  # set_transpose
    swapped = planes[[2, 1, 0]]  # set_channel_swap
    return (swapped * 255 - mean) * input_scale  # set_raw_scale, set_mean, set_input_scale


CAFFE = {"resize_rule": "stretch", "resample": "bilinear-point", "channel_order": "BGR"}


def rules(**changes: object) -> Preprocess:
    fields = {
        "input_px": 8,
        "resize_px": 10,
        "resize_rule": "short-side",
        "resample": "bicubic",
        "channel_order": "RGB",
        "mean": (127.0, 127.0, 127.0),
        "scale": 1 / 128,
    }
    return Preprocess(**{**fields, **changes})  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(["short-side", "stretch"]),
    st.sampled_from(["bicubic", "bilinear-point"]),
)
def test_pictures_of_any_size_become_squares(
    width: int, height: int, rule: str, resample: str
) -> None:
    pixels = rules(resize_rule=rule, resample=resample).pixels(noise(width, height))
    assert (pixels.shape, pixels.dtype) == ((8, 8, 3), np.uint8)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_resizing_only_the_crop_equals_resizing_all_and_cropping(resample: str) -> None:
    # From 28 x 20 to 14 x 10: on both sides the crop of 8 leaves an even number of pixels.
    image = noise(28, 20)
    whole = np.asarray(image.resize((14, 10), Image.Resampling[resample.upper()]))
    pixels = rules(resample=resample).pixels(image)
    assert np.abs(pixels.astype(int) - whole[1:9, 3:11]).max() <= 1


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    image = noise(8, 8)
    assert np.array_equal(rules(resize_px=8).pixels(image), np.asarray(image))


def test_stretching_keeps_what_short_side_cuts_off() -> None:
    image = Image.new("RGB", (40, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    assert not rules(resize_px=8).pixels(image).any()
    assert rules(resize_px=8, resize_rule="stretch").pixels(image)[:, 0].all()


def test_only_rgb_pictures_are_taken() -> None:
    with pytest.raises(ValueError, match="mode RGB, got L"):
        rules().pixels(noise(9, 9).convert("L"))


def test_normalising_follows_mean_scale_and_channel_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    mean = (10.0, 20.0, 30.0)
    planes = rules(channel_order="BGR", mean=mean, scale=0.5).normalise(pixels)
    expected = (pixels[..., ::-1].astype(np.float32) - np.float32(mean)) * 0.5
    assert planes.dtype == np.float32
    assert np.array_equal(planes, expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 9, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ],
)
def test_other_shapes_and_dtypes_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8 pixels of shape"):
        rules().normalise(pixels)


def test_the_rules_travel_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(rules())) == rules()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 30))
def test_caffe_s_resizing_is_bilinear_without_antialiasing(
    width: int, height: int, resize_px: int
) -> None:
    image = noise(width, height)
    pixels = rules(**CAFFE, resize_px=resize_px).pixels(image)
    whole = interpolated(np.asarray(image).astype(float), resize_px, resize_px)
    first = (resize_px - 8) // 2  # at whole pixels, the lower of two
    expected = whole[first : first + 8, first : first + 8]
    # Half a unit of rounding, and half of one for OpenCV's 11 bits of weight.
    assert np.abs(pixels - expected).max() <= 1


def test_caffe_s_resizing_gives_the_very_bytes_of_opencv() -> None:
    # cv2.resize(picture, (5, 4), interpolation=cv2.INTER_LINEAR) of OpenCV 5.0.0.
    picture = (np.arange(7 * 6 * 3) * 89 % 256).astype(np.uint8).reshape(7, 6, 3)
    digest = hashlib.sha256()
    for width, height in ((5, 4), (11, 13), (3, 3), (6, 7)):
        whole = resize_crop(picture, width=width, height=height, left=0, top=0, side=3)
        digest.update(whole.tobytes())
    assert digest.hexdigest() == "526237d2fc044ba81dccb92ceffbee8a3034ae43415c6027c6c82a63291f2983"


def test_the_square_is_cut_where_it_would_be_after_resizing_everything() -> None:
    picture = np.asarray(noise(50, 40))
    whole = resize_crop(picture, width=23, height=23, left=0, top=0, side=23)
    part = resize_crop(picture, width=23, height=23, left=5, top=9, side=8)
    assert np.array_equal(part, whole[9:17, 5:13])


def test_short_side_keeps_the_proportions_of_sampled_pictures_too() -> None:
    image = Image.new("RGB", (40, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    sampled = {"resize_px": 8, "resample": "bilinear-point"}
    assert not rules(**sampled).pixels(image).any()
    assert rules(**sampled, resize_rule="stretch").pixels(image)[:, 0].all()


def test_normalising_is_what_caffe_s_transformer_does() -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    image = rng.uniform(90, 130, (3, 8, 8)).astype(np.float32)
    by_channel = rules(**CAFFE, mean=(104.0, 117.0, 123.0), scale=0.017)
    expected = transformed(pixels, mean=np.array([[[104]], [[117]], [[123]]]), input_scale=0.017)
    assert np.allclose(by_channel.normalise(pixels[None])[0], expected, atol=1e-5)
    by_image = rules(**CAFFE, scale=0.017, mean_sha256="0" * 64, mean_image=image)
    expected = transformed(pixels, mean=image, input_scale=0.017)
    assert np.allclose(by_image.normalise(pixels[None])[0], expected, atol=1e-5)


def test_normalising_is_what_the_real_transformer_does(pycaffe: ModuleType) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    image = rng.uniform(90, 130, (3, 8, 8)).astype(np.float32)
    transformer = pycaffe.io.Transformer({"data": (1, 3, 8, 8)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", image)
    transformer.set_input_scale("data", 0.017)
    expected = transformer.preprocess("data", pixels.astype(np.float32) / 255)
    found = rules(**CAFFE, scale=0.017, mean_sha256="0" * 64, mean_image=image)
    assert np.allclose(found.normalise(pixels[None])[0], expected, atol=1e-6)


def test_a_picture_that_is_sampled_is_never_reduced_before() -> None:
    assert rules().min_side_px == 10
    assert rules(resample="bilinear-point").min_side_px > 100_000
