from pathlib import Path

import numpy as np
import pytest

from models.errors import BundleError, OptionError, WeightsError
from models.mean import cropped, read_any_mean, read_deviation


def test_three_numbers_are_taken_as_they_are_written() -> None:
    assert read_any_mean("123.675, 116.28,103.53") == (123.675, 116.28, 103.53)


def test_one_number_is_that_of_all_channels() -> None:
    assert read_any_mean("127.5") == (127.5, 127.5, 127.5)


def test_what_is_neither_numbers_nor_a_file_is_refused(tmp_path: Path) -> None:
    for text in ("absent.npy", str(tmp_path)):
        with pytest.raises(OptionError, match=f"--mean {text} is neither a file nor numbers"):
            read_any_mean(text)


def test_a_file_that_is_no_array_is_named_without_advice_to_unpickle_it(tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    path.write_text("no array")
    with pytest.raises(WeightsError, match=f"{path} is not an array of numbers") as refused:
        read_any_mean(str(path))
    assert "pickle" not in str(refused.value)


def test_a_file_may_hold_an_image_or_be_taken_by_channel(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(90, 130, (3, 6, 6))
    np.save(tmp_path / "mean.npy", image)
    found = read_any_mean(str(tmp_path / "mean.npy"))
    assert np.array_equal(found, image.astype(np.float32))
    by_channel = read_any_mean(str(tmp_path / "mean.npy"), by_channel=True)
    assert by_channel == pytest.approx(image.mean(axis=(1, 2)))


@pytest.mark.parametrize("side", [17, 12])
def test_an_image_is_cut_at_whole_pixels_below_the_centre(side: int) -> None:
    image = np.arange(3 * side * side, dtype=np.float32).reshape(3, side, side)
    start = {17: 2, 12: 0}[side]
    values, found = cropped(image, resize_px=17, input_px=12)
    assert np.array_equal(found, image[:, start : start + 12, start : start + 12])
    assert values == pytest.approx(found.mean(axis=(1, 2)))


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 17, 16), (3, 256, 256)])
def test_an_image_of_another_size_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(BundleError, match="--mean-by-channel"):
        cropped(np.zeros(shape, np.float32), resize_px=17, input_px=12)


@pytest.mark.parametrize("text", ["1,2", "1,2,inf", "1,2,3,4", "nan", "1,nan,3"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=f"--mean {text} is not one or three finite numbers"):
        read_any_mean(text)


def test_a_deviation_is_one_number_or_three() -> None:
    assert read_deviation("64") == (64.0, 64.0, 64.0)
    assert read_deviation("1,2,3") == (1.0, 2.0, 3.0)
    for text in ("0", "1,2,-3", "wide", "nan", "inf", "1,nan,3", "1e39", "1e-60", ""):
        with pytest.raises(OptionError, match=f"--std {text} is not one or three positive"):
            read_deviation(text)
