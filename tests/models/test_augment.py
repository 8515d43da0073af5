"""Examples for fine-tuning: what is drawn, and what stays as it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.preprocess import Preprocess

augment = pytest.importorskip("models.training.augment")

SIDE_PX = 16
PREPROCESS = Preprocess(
    input_px=SIDE_PX,
    resize_px=SIDE_PX,
    resize_rule="short-side",
    resample="bilinear",
    channel_order="RGB",
    mean=(10.4, 20.0, 29.6),
    scale=1 / 64,
)
Pixels = NDArray[np.uint8]


def picture(width: int = SIDE_PX, height: int = SIDE_PX) -> Image.Image:
    """A picture in which no two pixels are alike."""
    red, green = np.mgrid[0:height, 0:width]
    planes = [100 + red, 100 + green, np.full_like(red, 200)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def still(**changes: Any) -> Any:
    """An augmentation that does what is told and nothing else."""
    settings = {"least_area": 1.0, "most_stretch": 1.0, "mirror": False, **changes}
    return augment.Augmentation(**settings)


def applied(augmentation: Any, seed: int, preprocess: Preprocess = PREPROCESS) -> Pixels:
    found = augmentation.apply(picture(), preprocess, np.random.default_rng(seed))
    assert (found.dtype, found.shape) == (np.uint8, (SIDE_PX, SIDE_PX, 3))
    assert found.flags["C_CONTIGUOUS"]
    pixels: Pixels = found
    return pixels


def test_nothing_told_leaves_the_picture() -> None:
    np.testing.assert_array_equal(applied(still(), 0), np.asarray(picture()))


def test_mirroring_turns_half_of_the_examples() -> None:
    plain = np.asarray(picture())
    turned = [applied(still(mirror=True), seed) for seed in range(100)]
    mirrored = [np.array_equal(each, plain[:, ::-1]) for each in turned]
    assert all(mirrored[at] or np.array_equal(each, plain) for at, each in enumerate(turned))
    assert 30 < sum(mirrored) < 70


@pytest.mark.parametrize("resize_px", [SIDE_PX, 20])
def test_where_no_part_fits_the_middle_is_kept(resize_px: int) -> None:
    wide = np.asarray(picture(24, 16))
    preprocess = dataclasses.replace(PREPROCESS, resize_px=resize_px)
    for image, middle in (
        (picture(24, 16), wide[:, 4:20]),
        (Image.fromarray(wide.transpose(1, 0, 2).copy()), wide[:, 4:20].transpose(1, 0, 2)),
    ):
        found = still().apply(image, preprocess, np.random.default_rng(0))
        np.testing.assert_array_equal(found, middle)


def test_where_no_part_fits_a_stretched_picture_is_kept_whole() -> None:
    preprocess = dataclasses.replace(PREPROCESS, resize_rule="stretch")
    found = still().apply(picture(24, 16), preprocess, np.random.default_rng(0))
    whole = picture(24, 16).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(whole))


def test_where_no_part_fits_a_square_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_TRIES", 0)
    preprocess = dataclasses.replace(PREPROCESS, resize_px=20)
    np.testing.assert_array_equal(applied(still(), 0, preprocess), np.asarray(picture()))


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("with_image", [False, True])
def test_pictures_are_normalised_as_in_searches(order: str, with_image: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    image = rng.uniform(90, 130, (3, SIDE_PX, SIDE_PX)).astype(np.float32)
    image.flags.writeable = False  # PyTorch warns of sharing such an array
    preprocess = dataclasses.replace(
        PREPROCESS,
        channel_order=order,
        scale=1 / 57.3,
        mean_image=image if with_image else None,
    )
    pixels = rng.integers(0, 256, (5, SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    found = augment.normalised(torch.from_numpy(pixels), preprocess)
    np.testing.assert_array_equal(found.numpy(), preprocess.normalise(pixels))
    assert found.is_contiguous(memory_format=torch.channels_last)
