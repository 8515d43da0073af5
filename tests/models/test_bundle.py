import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle, load_bundle
from models.errors import BundleError

MakeBundle = Callable[..., Bundle]


def edit(bundle: Bundle, pattern: str, replacement: str) -> None:
    """Rewrite a line of the bundle's description."""
    path = bundle.path / "bundle.toml"
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    assert count == 1
    path.write_text(text)


def test_what_is_written_is_what_is_read(make_bundle: MakeBundle) -> None:
    centres = np.random.default_rng(0).integers(0, 256, (5, 2), np.uint8)
    bundle = make_bundle(centres=centres, metric="l2", code_threshold=0.25, licence='"M" é\n')
    assert (bundle.name, bundle.bits, bundle.dims, bundle.metric) == ("tiny", 12, 6, "l2")
    assert (bundle.code_threshold, bundle.licence) == (0.25, '"M" é\n')
    assert bundle.preprocess.mean == (127.0, 127.0, 127.0)
    assert bundle.centres is not None
    assert np.array_equal(bundle.centres, centres)
    assert load_bundle(bundle.path) == bundle


def test_the_id_does_not_depend_on_the_place_or_the_licence(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    assert re.fullmatch(r"tiny@[0-9a-f]{12}", bundle.id)
    moved = dataclasses.replace(bundle, path=Path("elsewhere"), licence="MIT")
    assert moved.id == bundle.id


@pytest.mark.parametrize(
    "change",
    [
        {"code_threshold": 0.4},
        {"metric": "l2"},
        {"sha256": "0" * 64},
        {"name": "other"},
        {"centres": np.zeros((3, 2), np.uint8)},
    ],
)
def test_the_id_changes_with_whatever_changes_codes_or_distances(
    make_bundle: MakeBundle, change: dict[str, object]
) -> None:
    bundle = make_bundle()
    assert dataclasses.replace(bundle, **change).id != bundle.id  # type: ignore[arg-type]
    wider = dataclasses.replace(bundle.preprocess, resize_px=11)
    assert dataclasses.replace(bundle, preprocess=wider).id != bundle.id


@pytest.mark.parametrize("name", ["bundle.toml", "network.onnx", "centres.npy"])
def test_a_missing_file_is_named(make_bundle: MakeBundle, name: str) -> None:
    bundle = make_bundle(centres=np.zeros((3, 2), np.uint8))
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match=re.escape(str(bundle.path / name))):
        load_bundle(bundle.path)


@pytest.mark.parametrize("name", ["network.onnx", "centres.npy"])
def test_a_changed_file_is_named(make_bundle: MakeBundle, name: str) -> None:
    bundle = make_bundle(centres=np.zeros((3, 2), np.uint8))
    data = bytearray((bundle.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle.path / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} is damaged or was replaced"):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"^bits = 12$", "", "field code.bits is missing"),
        (r"^bits = 12$", "bits = -1", "field code.bits is -1"),
        (r"^source = .*$", 'source = "torch"', "expected one of onnx, caffe"),
        (r"^source = .*$", 'source = "caffe"', "field caffe is missing"),
        (r"^weight = .*$", "weight = -1", "field code.weight is -1"),
        (r"^bits = 12$", "bits = true", "field code.bits is True, expected int"),
        (r"^bits = 12$", 'bits = "12"', "field code.bits is '12', expected int"),
        (r"^format = 1$", "format = 2", "update lookalike"),
        (r"^name = .*$", 'name = "../up"', "field name is '../up'"),
        (r"^metric = .*$", 'metric = "dot"', "expected one of cosine, l2"),
        (r"^resample = .*$", 'resample = "best"', "field preprocess.resample"),
        (r"^resize_px = .*$", "resize_px = 4", "less than input_px"),
        (r"^mean = .*$", "mean = [1, 2]", "expected 3 numbers"),
        (r"^mean = .*$", "mean = [1, 2, true]", "expected 3 numbers"),
        (r"^scale = .*$", 'scale = "a"', "field preprocess.scale"),
        (r"^scale = .*$", "scale = inf", "expected a finite number"),
        (r"^mean = .*$", "mean = [1, 2, nan]", "expected 3 numbers"),
        (r"^\[code\]$", "[cod]", "field code is missing"),
        (r"^format = 1$", "format 1", "not valid TOML"),
    ],
)
def test_a_wrong_field_is_named(
    make_bundle: MakeBundle, pattern: str, replacement: str, message: str
) -> None:
    bundle = make_bundle()
    edit(bundle, pattern, replacement)
    with pytest.raises(BundleError, match=re.escape(message)) as caught:
        load_bundle(bundle.path)
    assert "bundle.toml" in str(caught.value)


def test_whole_numbers_are_taken_for_decimal_ones(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    edit(bundle, r"^scale = .*$", "scale = 2")
    assert load_bundle(bundle.path).preprocess.scale == 2.0


def test_centres_of_another_width_are_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match=r"uint8 of shape \(M, 2\)"):
        make_bundle(centres=np.zeros((3, 5), np.uint8))


def test_a_directory_without_a_description_says_what_a_bundle_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="a bundle is a directory with"):
        load_bundle(tmp_path)
