import dataclasses
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle, caffe_digest, load_bundle
from models.bundle_writer import npy
from models.errors import BundleError
from models.preprocess import Preprocess

MakeBundle = Callable[..., Bundle]


CAFFE = (b"name: 'tiny'", b"weights")


def caffe_bundle(make_bundle: MakeBundle, **changes: object) -> Bundle:
    """Write a bundle whose original is Caffe's."""
    digests = [hashlib.sha256(content).hexdigest() for content in CAFFE]
    original = {"source": "caffe", "sha256": caffe_digest(*digests)}
    return make_bundle(caffe_files=CAFFE, **{**original, **changes})


MEAN_IMAGE = np.arange(192, dtype=np.float32).reshape(3, 8, 8)


def mean_bundle(make_bundle: MakeBundle, image: np.ndarray = MEAN_IMAGE) -> Bundle:
    """Write a bundle with a mean image."""
    preprocess = Preprocess(
        input_px=8,
        resize_px=8,
        resize_rule="stretch",
        resample="bilinear-point",
        channel_order="BGR",
        mean=(1.0, 2.0, 3.0),
        scale=1.0,
        mean_sha256=hashlib.sha256(npy(image)).hexdigest(),
        mean_image=image,
    )
    return make_bundle(preprocess=preprocess)


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
        {"latent_name": "other"},
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


def test_a_bundle_may_have_both_forms_and_keeps_its_id(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(caffe_files=CAFFE, code_weight=0.5)
    assert bundle.caffe is not None
    assert (bundle.caffe.prototxt.read_bytes(), bundle.caffe.weights.read_bytes()) == CAFFE
    names = (bundle.caffe.input_name, bundle.caffe.feature_name, bundle.caffe.latent_name)
    assert names == ("data", "pool", "bits")
    assert (bundle.source, bundle.code_weight) == ("onnx", 0.5)
    # Codes and features are those of network.onnx: a store need not be built anew.
    assert dataclasses.replace(bundle, caffe=None, code_weight=0.0).id == bundle.id


def test_a_bundle_of_caffe_files_alone_can_be_read(make_bundle: MakeBundle) -> None:
    bundle = caffe_bundle(make_bundle)
    assert bundle.source == "caffe"
    assert not (bundle.path / "network.onnx").exists()
    with pytest.raises(BundleError, match="ensure_bundle converts them"):
        _ = bundle.network


def test_the_digest_of_caffe_files_follows_either_of_them() -> None:
    digests = {caffe_digest(*pair) for pair in (("a", "b"), ("a", "c"), ("c", "b"), ("b", "a"))}
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["deploy.prototxt", "weights.caffemodel"])
@pytest.mark.parametrize("source", ["onnx", "caffe"])
def test_a_changed_caffe_file_is_named(make_bundle: MakeBundle, name: str, source: str) -> None:
    make = caffe_bundle if source == "caffe" else lambda make: make(caffe_files=CAFFE)
    bundle = make(make_bundle)
    (bundle.path / name).write_bytes(b"other")
    with pytest.raises(BundleError, match=rf"{name} is damaged or was replaced"):
        load_bundle(bundle.path)


def test_a_digest_that_is_not_that_of_the_caffe_files_is_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match=r"network\.sha256 is not that of the two"):
        caffe_bundle(make_bundle, sha256="0" * 64)


def test_a_mean_image_is_written_and_read(make_bundle: MakeBundle) -> None:
    bundle = mean_bundle(make_bundle)
    image = bundle.preprocess.mean_image
    assert image is not None
    assert np.array_equal(image, MEAN_IMAGE)
    plain = dataclasses.replace(bundle.preprocess, mean_sha256=None, mean_image=None)
    assert dataclasses.replace(bundle, preprocess=plain).id != bundle.id


def test_a_changed_mean_image_is_named(make_bundle: MakeBundle) -> None:
    bundle = mean_bundle(make_bundle)
    np.save(bundle.path / "mean.npy", np.zeros((3, 8, 8), np.float32))
    with pytest.raises(BundleError, match=r"mean\.npy is damaged or was replaced"):
        load_bundle(bundle.path)


def test_a_mean_image_of_another_size_is_refused(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match=r"float32 of shape \(3, 8, 8\)"):
        mean_bundle(make_bundle, np.zeros((3, 9, 9), np.float32))


def test_a_bundle_without_a_code_layer_can_be_read(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(bits=0, latent_name="")
    assert (bundle.bits, bundle.latent_name) == (0, "")


def test_fields_that_came_later_may_be_missing(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    edit(bundle, r"^source = .*$", "")
    edit(bundle, r"^weight = .*$", "")
    assert load_bundle(bundle.path) == bundle
