import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.preprocess import Preprocess


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


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
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["short-side", "stretch"]))
def test_pictures_of_any_size_become_squares(width: int, height: int, rule: str) -> None:
    pixels = rules(resize_rule=rule).pixels(noise(width, height))
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
