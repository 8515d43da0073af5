"""Caffe and ONNX Runtime say the same; and where they do not, the comparison says so."""

import dataclasses
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.bundle import Bundle
from models.caffe.from_onnx import CaffeForm
from models.caffe.schema import message
from models.engine import Embedding
from models.errors import EngineError
from models.parity import FEATURE_TOLERANCE, NEAR_THRESHOLD, Parity, compare, compared

MakeBundle = Callable[..., Bundle]


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
