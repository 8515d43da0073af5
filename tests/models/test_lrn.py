from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.engines import open_engine
from models.graphs.lrn import expand_lrn
from tests.models.caffe_files import run
from tests.models.conftest import MakeBundle, tiny_network

Array = NDArray[Any]


def network(opset: int = 17, **attributes: Any) -> onnx.ModelProto:
    nodes = [
        helper.make_node("LRN", ["x"], ["n"], **attributes),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 7, 3, 2]) for name in "xy"
    ]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def pictures(count: int = 5) -> Array:
    return np.random.default_rng(0).normal(0, 30, (count, 7, 3, 2)).astype(np.float32)


def defined(x: Array, size: int, beta: float, alpha: float, bias: float) -> Array:
    found = np.empty_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - size // 2) : c + size // 2 + 1]
        found[:, c] = x[:, c] / (bias + alpha / size * (near**2).sum(1)) ** beta
    return found


def kinds(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([1, 3, 5, 9]),
    st.sampled_from([0.5, 0.75, 1.0]),
    st.floats(1e-5, 2),
    st.floats(0.5, 3),
)
def test_roots_give_the_same_numbers(size: int, beta: float, alpha: float, bias: float) -> None:
    model = network(size=size, beta=beta, alpha=alpha, bias=bias)
    found = expand_lrn(model)
    onnx.checker.check_model(found, full_check=True)
    assert "LRN" not in kinds(found)
    x = pictures()
    # ONNX Runtime's own adds and takes away along the channels, and loses digits on the way.
    np.testing.assert_allclose(run(found, x)[0], run(model, x)[0], rtol=1e-3, atol=1e-4)
    expected = np.maximum(defined(x.astype(np.float64), size, beta, alpha, bias), 0)
    np.testing.assert_allclose(run(found, x)[0], expected, rtol=2e-6)


def test_no_bit_depends_on_the_company_of_an_image() -> None:
    model, x = expand_lrn(network(size=5)), pictures(13)
    alone = np.concatenate([run(model, x[i : i + 1])[0] for i in range(len(x))])
    for count in (2, 3, 8, 13):
        np.testing.assert_array_equal(run(model, x[:count])[0], alone[:count])


@pytest.mark.parametrize("model", [network(size=5, beta=0.6), network(opset=11, size=5)])
def test_other_powers_and_old_networks_stay_as_they_are(model: onnx.ModelProto) -> None:
    assert expand_lrn(model) == model


def test_the_engine_opens_networks_with_lrn_in_the_faster_form(make_bundle: MakeBundle) -> None:
    model = onnx.load_from_string(tiny_network())
    conv = model.graph.node[0]
    conv.output[0] = "before"
    model.graph.node.insert(1, helper.make_node("LRN", ["before"], ["map"], size=3, alpha=0.1))
    bundle = make_bundle(model.SerializeToString())
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    with open_engine(bundle, threads=1) as engine:
        found = engine.embed(pixels)
        alone = [engine.embed(each[None]).features[0] for each in pixels]
    np.testing.assert_array_equal(found.features, alone)
    planes = bundle.preprocess.normalise(pixels)
    np.testing.assert_allclose(found.features, run(model, planes)[0], rtol=1e-4, atol=1e-5)
