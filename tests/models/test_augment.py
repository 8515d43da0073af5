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
    """A picture in which no two pixels are alike and none is the mean."""
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


@pytest.mark.parametrize("name", ["shift", "erase"])
def test_the_same_draw_gives_the_same_example(name: str) -> None:
    augmentation = still(**{name: 0.25})
    examples = [applied(augmentation, seed).tobytes() for seed in range(8)]
    assert examples == [applied(augmentation, seed).tobytes() for seed in range(8)]
    assert len({*examples}) > 4


def test_a_move_is_at_most_the_share_and_mirrors_what_comes_in() -> None:
    around = np.pad(np.asarray(picture()), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = {
        around[top : top + SIDE_PX, left : left + SIDE_PX].tobytes(): (top - 4, left - 4)
        for top in range(9)
        for left in range(9)
    }
    moves = [windows[applied(still(shift=0.25), seed).tobytes()] for seed in range(200)]
    for axis in range(2):
        assert {move[axis] for move in moves} == {*range(-4, 5)}


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_an_erased_square_lies_in_the_picture_and_has_the_mean(order: str) -> None:
    preprocess = dataclasses.replace(PREPROCESS, channel_order=order)
    mean = [10, 20, 30] if order == "RGB" else [30, 20, 10]
    places = set()
    for seed in range(200):
        pixels = applied(still(erase=0.25), seed, preprocess)
        erased = (pixels == mean).all(axis=-1)
        rows, columns = erased.any(axis=1).nonzero()[0], erased.any(axis=0).nonzero()[0]
        assert (len(rows), len(columns), erased.sum()) == (4, 4, 16)
        assert (pixels[~erased] == np.asarray(picture())[~erased]).all()
        places |= {("row", rows[0]), ("column", columns[0])}
    # Every place there is, up to both edges.
    assert places == {(axis, at) for axis in ("row", "column") for at in range(SIDE_PX - 3)}


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
