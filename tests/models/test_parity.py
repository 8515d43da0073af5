"""Caffe and ONNX Runtime say the same; and where they do not, the comparison says so."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.bundle import Bundle
from models.caffe.from_onnx import CaffeForm
from models.caffe.schema import message
from models.caffe.topologies import FEATURE, LATENT, deploy, random_weights
from models.catalogue import ensure_bundle
from models.engine import Embedding
from models.errors import EngineError
from models.importing import Named, import_caffe
from models.parity import FEATURE_TOLERANCE, NEAR_THRESHOLD, Parity, compare, compared
from models.pictures import CAFFE_PICTURES
from ops.caffe.commands import BuildError
from ops.caffe.recipe import Recipe
from ops.caffe.source import fetch_source
from tests.models.caffe_files import FORMATS, caffemodel, random_blobs

MakeBundle = Callable[..., Bundle]
ImportNet = Callable[..., Bundle]

# ResNet-50 with half the channels, trained by others; BSD-2-Clause.
NSFW = Recipe(
    project="nsfw",
    version="0.3.2",
    sha256="2bc5dd5695a330f8f0425ec63e14cee44ad7ec962a654e00e743e95e7b812e6f",
    build=1,
)


def embedding(features: NDArray[np.float64], latent: NDArray[np.float64]) -> Embedding:
    codes = np.packbits(latent > 0.5, axis=1)
    return Embedding(features.astype(np.float32), latent.astype(np.float32), codes)


def told(onnx: Embedding, caffe: Embedding) -> Parity:
    return compared(onnx, caffe, threshold=0.5, speeds=(2.0, 1.0))


def test_equal_answers_are_within_tolerance() -> None:
    same = embedding(np.ones((2, 3)), np.array([[0.5, 0.9], [0.1, 0.50005]]))
    found = told(same, same)
    assert found.within_tolerance
    assert (found.max_abs_diff, found.bits_differing, found.bits_wrong) == (0, 0, 0)
    assert (found.images, found.bits, found.bits_near_threshold) == (2, 4, 2)


@given(st.floats(-0.01, 0.01), st.floats(-0.001, 0.001), st.floats(-0.001, 0.001))
def test_one_value_of_each_kind_decides(feature: float, one: float, other: float) -> None:
    onnx = embedding(np.zeros((1, 2)), np.array([[0.5 + one, 0.9]]))
    caffe = embedding(np.array([[0, feature]]), np.array([[0.5 + other, 0.9]]))
    found = told(onnx, caffe)
    latents = np.array([onnx.latent[0, 0], caffe.latent[0, 0]])
    differs = bool((latents > 0.5)[0] != (latents > 0.5)[1])
    near = bool((abs(latents - 0.5) <= NEAR_THRESHOLD).all())
    assert found.max_abs_diff == abs(np.float32(feature))
    assert found.bits_differing == differs
    assert found.bits_near_threshold == near
    assert found.bits_wrong == (differs and not near)
    assert found.within_tolerance == (
        found.max_abs_diff < FEATURE_TOLERANCE and not found.bits_wrong
    )


def test_a_network_without_code_is_compared_by_its_features() -> None:
    bare = embedding(np.ones((2, 3)), np.empty((2, 0)))
    found = told(bare, bare)
    assert found.within_tolerance
    assert (found.bits, found.max_abs_diff_latent) == (0, 0)


def test_a_tiny_network_is_the_same_in_both_engines(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle
) -> None:
    bundle = make_caffe_bundle()
    real = np.full((3, 8, 8, 3), 90, np.uint8)
    found = compare(bundle, real, count=20, seed=1)
    assert found.within_tolerance
    assert (found.images, found.bits) == (23, 23 * 12)
    assert found.onnx_images_per_s > 0 < found.caffe_images_per_s
    again = compare(bundle, real, count=20, seed=1)
    assert again.max_abs_diff == found.max_abs_diff
    assert dataclasses.replace(
        again, onnx_images_per_s=0, caffe_images_per_s=0
    ) == dataclasses.replace(found, onnx_images_per_s=0, caffe_images_per_s=0)


def with_halved_weights(form: CaffeForm) -> tuple[bytes, bytes]:
    net = message("NetParameter")
    net.ParseFromString(form.weights)
    weights = net.layer[0].blobs[0]
    weights.data = (np.frombuffer(weights.data, "<f4") / 2).tobytes()
    return form.prototxt, net.SerializeToString()


def test_networks_that_are_not_the_same_are_found_out(
    pycaffe: ModuleType, make_caffe_bundle: MakeBundle
) -> None:
    found = compare(make_caffe_bundle(edit=with_halved_weights), count=20, seed=1)
    assert not found.within_tolerance
    assert found.max_abs_diff > 0.1


def test_nothing_to_compare_on_is_refused(make_caffe_bundle: MakeBundle) -> None:
    with pytest.raises(ValueError, match="at least 1 image"):
        compare(make_caffe_bundle(), count=0, seed=1)


def test_a_bundle_with_one_form_cannot_be_compared(
    pycaffe: ModuleType, make_bundle: MakeBundle
) -> None:
    with pytest.raises(EngineError, match="no Caffe form"):
        compare(make_bundle(), count=1, seed=1)


def test_the_default_bundle_is_the_same_in_both_engines(
    pycaffe: ModuleType, lite_bundle: Bundle
) -> None:
    found = compare(lite_bundle, count=6, seed=1)
    assert found.within_tolerance
    assert found.bits == 6 * 128


@pytest.fixture
def import_net(tmp_path: Path) -> ImportNet:
    """Makes a bundle of Caffe files, and of that what the engines want."""

    def make(prototxt: Path, weights: Path, *, feature: str, code: str | None) -> Bundle:
        named = Named("brought", tmp_path / "brought", "l2")
        import_caffe(
            prototxt, weights, named=named, feature=feature, code=code, pictures=CAFFE_PICTURES
        )
        return ensure_bundle(str(named.out), cache_dir=tmp_path / "cache", needs_code=False)

    return make


@pytest.mark.parametrize("form", FORMATS)
def test_a_network_in_each_of_caffes_formats_is_the_same_in_both_engines(
    pycaffe: ModuleType, import_net: ImportNet, tmp_path: Path, form: str
) -> None:
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(FORMATS[form])
    weights.write_bytes(caffemodel(random_blobs(prototxt), form))
    found = compare(import_net(prototxt, weights, feature="fc3", code="encode"), count=40, seed=1)
    assert found.within_tolerance
    assert found.bits == 40 * 12


def test_caffenet_with_random_weights_is_the_same_in_both_engines(
    pycaffe: ModuleType, import_net: ImportNet, tmp_path: Path
) -> None:
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(deploy("caffenet", bits=128))
    weights.write_bytes(random_weights("caffenet", bits=128, seed=1))
    found = compare(import_net(prototxt, weights, feature=FEATURE, code=LATENT), count=8, seed=1)
    assert found.within_tolerance
    assert found.bits == 8 * 128


def test_a_network_that_others_trained_is_the_same_in_both_engines(
    pycaffe: ModuleType, import_net: ImportNet, tmp_path: Path
) -> None:
    try:
        source = fetch_source(NSFW, tmp_path, log=tmp_path / "log") / "nsfw"
    except BuildError as error:
        pytest.skip(str(error))
    bundle = import_net(
        source / "deploy.prototxt",
        source / "resnet_50_1by2_nsfw.caffemodel",
        feature="pool",
        code=None,
    )
    assert (bundle.dims, bundle.bits) == (1024, 0)
    assert compare(bundle, count=4, seed=1).within_tolerance
