from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from models.graphs.rounding import round_weights

Generator = np.random.Generator

# The first call takes long, and a busy machine makes others do so.
patient = settings(deadline=None, max_examples=40)


def layer(kind: str, constants: dict[str, NDArray[Any]], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(kind, ["x", *constants], ["y"], name="layer", **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()]
    graph = helper.make_graph([node], "layer", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def constants_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def weight_of(model: onnx.ModelProto) -> NDArray[np.float32]:
    return constants_of(model)[model.graph.node[0].input[1]]


def result(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ReferenceEvaluator(model).run(None, {"x": x})[0]
    return found


def convolution(
    rng: Generator, *, groups: int, inputs: int, outputs: int, kernel: int, bias: bool
) -> onnx.ModelProto:
    constants = {"w": rng.standard_normal((groups * outputs, inputs, kernel, kernel))}
    if bias:
        constants["b"] = rng.standard_normal(groups * outputs)
    return layer("Conv", constants, group=groups)


@patient
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(1, 4),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 4),
    kernel=st.sampled_from([1, 3]),
    bias=st.booleans(),
)
def test_a_convolution_of_mean_pictures_gives_the_same(
    seed: int, groups: int, inputs: int, outputs: int, kernel: int, bias: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = convolution(
        rng, groups=groups, inputs=inputs, outputs=outputs, kernel=kernel, bias=bias
    )
    mean = rng.random(groups * inputs)
    rounded = round_weights(model, {"layer": mean})
    x = np.broadcast_to(mean[:, None, None], (1, len(mean), 4, 4)).astype(np.float32)
    assert np.allclose(result(rounded, x), result(model, x), atol=1e-5)


@patient
@given(seed=st.integers(0, 2**32 - 1), turned=st.booleans(), bias=st.booleans())
def test_a_full_layer_of_mean_inputs_gives_the_same(seed: int, turned: bool, bias: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((5, 7))
    constants = {"w": weight.T if not turned else weight}
    if bias:
        constants["b"] = rng.standard_normal(5)
    model = layer("Gemm", constants, transB=int(turned))
    mean = rng.random(7)
    rounded = round_weights(model, {"layer": mean})
    x = mean[None].astype(np.float32)
    assert np.allclose(result(rounded, x), result(model, x), atol=1e-5)
    assert not np.array_equal(weight_of(rounded), weight_of(model))


@patient
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-6, 1.0, 1e6]))
def test_weights_become_whole_127ths_of_the_largest_of_their_channel(
    seed: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((6, 3, 2, 2)).astype(np.float32) * np.float32(size)
    model = round_weights(layer("Conv", {"w": weight}), {"layer": np.zeros(3)})
    rounded = weight_of(model).reshape(6, -1)
    largest = abs(weight).reshape(6, -1).max(axis=1, keepdims=True)
    steps = rounded / largest * 127
    assert abs(steps - steps.round()).max() < 1e-3
    assert abs(rounded - weight.reshape(6, -1)).max() <= largest.max() / 127 * 0.501
    assert np.allclose(abs(steps).max(axis=1), 127)


def test_rounding_again_changes_nothing() -> None:
    model = convolution(
        np.random.default_rng(1), groups=2, inputs=3, outputs=2, kernel=3, bias=True
    )
    once = round_weights(model, {"layer": np.ones(6)})
    twice = round_weights(once, {"layer": np.ones(6)})
    for first, second in zip(
        constants_of(once).values(), constants_of(twice).values(), strict=True
    ):
        assert np.allclose(first, second, atol=1e-5)


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = np.zeros((2, 3, 1, 1))
    weight[0] = 1
    model = round_weights(layer("Conv", {"w": weight}), {"layer": np.ones(3)})
    assert np.array_equal(weight_of(model), weight)


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
def test_a_full_layer_with_factors_is_left_alone(attributes: dict[str, float]) -> None:
    constants = {"w": np.random.default_rng(1).random((3, 3)), "b": np.ones(3)}
    model = layer("Gemm", constants, **attributes)
    assert np.array_equal(weight_of(round_weights(model, {"layer": np.ones(3)})), weight_of(model))


def test_only_named_layers_are_rounded_and_the_given_network_stays() -> None:
    model = layer("Gemm", {"w": np.random.default_rng(1).random((3, 3))})
    before = model.SerializeToString()
    assert round_weights(model, {}).SerializeToString() == before
    round_weights(model, {"layer": np.ones(3)})
    assert model.SerializeToString() == before
