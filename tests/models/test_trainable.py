"""A graph computes the same in PyTorch as in ONNX Runtime, and comes back with its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.catalogue import WEIGHTS
from models.errors import TrainingError
from models.lite import VARIANTS, build_backbone

torch = pytest.importorskip("torch")
trainable = pytest.importorskip("models.training.trainable")

SIDE_PX = 13
Constants = dict[str, NDArray[Any]]


def graph_of(nodes: list[onnx.NodeProto], constants: Constants) -> onnx.ModelProto:
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4, SIDE_PX, SIDE_PX])
    graph = helper.make_graph(
        nodes,
        "one",
        [image],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def floats(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def by_runtime(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    found: NDArray[np.float32] = session.run(None, {"input": images})[0]
    return found


def by_torch(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    module = trainable.Trainable(model).eval()
    (found,) = module(torch.from_numpy(images)).values()
    values: NDArray[np.float32] = found.detach().numpy()
    return values


def node(kind: str, inputs: str = "input", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), ["out"], **attributes)


POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
CASES: dict[str, tuple[onnx.NodeProto, Constants]] = {
    "convolution": (
        node("Conv", "input w b", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        {"w": floats(6, 4, 3, 3), "b": floats(6)},
    ),
    "convolution in groups, with a stride and uneven padding": (
        node("Conv", "input w", strides=[2, 2], pads=[0, 1, 1, 2], group=2, kernel_shape=[3, 3]),
        {"w": floats(6, 2, 3, 3)},
    ),
    "dilated convolution": (
        node("Conv", "input w", dilations=[2, 2], kernel_shape=[3, 3]),
        {"w": floats(2, 4, 3, 3)},
    ),
    "normalisation": (
        node("BatchNormalization", "input g b m v", epsilon=1e-3),
        {"g": floats(4), "b": floats(4), "m": floats(4), "v": floats(4) ** 2},
    ),
    "largest": (node("MaxPool", **POOL), {}),
    "largest, sizes rounded up": (
        node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        {},
    ),
    "largest, padded at the ends": (node("MaxPool", pads=[0, 0, 1, 1], **POOL), {}),
    "average without the padding": (node("AveragePool", pads=[1, 1, 1, 1], **POOL), {}),
    "average with the padding": (
        node("AveragePool", pads=[1, 1, 1, 1], count_include_pad=1, **POOL),
        {},
    ),
    "local response": (node("LRN", size=3, alpha=0.5, beta=0.75, bias=2.0), {}),
    "clip": (
        node("Clip", "input low high"),
        {"low": np.array(0, np.float32), "high": np.array(1, np.float32)},
    ),
    "clip without a top": (node("Clip", "input low"), {"low": np.array(0, np.float32)}),
    "pad": (node("Pad", "input p"), {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0], np.int64)}),
    "reshape": (node("Reshape", "input s"), {"s": np.array([0, -1], np.int64)}),
    "unsqueeze": (node("Unsqueeze", "input a"), {"a": np.array([1, 5], np.int64)}),
    "flatten": (node("Flatten"), {}),
    "mean of the picture": (node("GlobalAveragePool"), {}),
    "softmax over channels": (node("Softmax", axis=1), {}),
    "slope below zero": (node("PRelu", "input s"), {"s": floats(4, 1, 1)}),
    "leak": (node("LeakyRelu", alpha=0.2), {}),
    "elu": (node("Elu", alpha=0.7), {}),
    "matrix": (node("MatMul", "input w"), {"w": floats(SIDE_PX, 5)}),
    "scale of channels": (node("Mul", "input s"), {"s": floats(1, 4, 1, 1)}),
    "concatenation": (node("Concat", "input input", axis=1), {}),
    "larger of two": (node("Max", "input c"), {"c": floats(1, 4, 1, 1)}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operation_gives_what_onnx_runtime_gives(name: str) -> None:
    one, constants = CASES[name]
    model, images = graph_of([one], constants), floats(2, 4, SIDE_PX, SIDE_PX, seed=2)
    np.testing.assert_allclose(
        by_torch(model, images), by_runtime(model, images), rtol=1e-4, atol=1e-5
    )


def test_a_matrix_product_gives_what_onnx_runtime_gives() -> None:
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["out"], transB=1, alpha=0.5, beta=2.0),
    ]
    model = graph_of(nodes, {"w": floats(7, 4 * SIDE_PX**2), "b": floats(7)})
    images = floats(3, 4, SIDE_PX, SIDE_PX)
    np.testing.assert_allclose(
        by_torch(model, images), by_runtime(model, images), rtol=1e-3, atol=1e-3
    )


@pytest.fixture(scope="module")
def small_lite() -> onnx.ModelProto:
    return build_backbone(VARIANTS["lite0"], WEIGHTS["lite0"].read(), input_px=32)


def test_a_network_gives_what_onnx_runtime_gives(small_lite: onnx.ModelProto) -> None:
    images = floats(2, 3, 32, 32)
    np.testing.assert_allclose(
        by_torch(small_lite, images), by_runtime(small_lite, images), rtol=1e-3, atol=1e-4
    )


def test_an_untrained_network_comes_back_as_it_was(small_lite: onnx.ModelProto) -> None:
    back = trainable.Trainable(small_lite).to_onnx()
    assert back.SerializeToString() == small_lite.SerializeToString()


def test_training_changes_weights_and_running_means_and_they_come_back(
    small_lite: onnx.ModelProto,
) -> None:
    images = floats(4, 3, 32, 32)
    module = trainable.Trainable(small_lite).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    (feature,) = module(torch.from_numpy(images)).values()
    feature.square().mean().backward()
    optimiser.step()
    names = {each.name for each in small_lite.graph.initializer}
    before = {each.name: each for each in small_lite.graph.initializer}
    changed = {
        each.name
        for each in module.to_onnx().graph.initializer
        if each.raw_data != before[each.name].raw_data
    }
    # A bias in front of another normalisation has no gradient.
    assert {name for name in names - changed if not name.endswith(".bias")} == {"zero", "six"}
    module.eval()
    (again,) = module(torch.from_numpy(images)).values()
    np.testing.assert_allclose(
        again.detach().numpy(), by_runtime(module.to_onnx(), images), rtol=1e-3, atol=1e-4
    )


def test_an_operation_that_cannot_be_trained_is_named() -> None:
    model = graph_of([node("Erf")], {})
    with pytest.raises(TrainingError, match=r"operation Erf of node 'out'.*without --finetune"):
        trainable.Trainable(model)


@pytest.mark.parametrize(("group", "kept"), [(1, False), (4, True)])
def test_grouped_convolutions_stay_precise_where_precision_is_mixed(
    group: int, kept: bool
) -> None:
    weight = floats(4, 4 // group, 3, 3)
    model = graph_of([node("Conv", "input w", group=group)], {"w": weight})
    images = torch.from_numpy(floats(2, 4, SIDE_PX, SIDE_PX))
    module = trainable.Trainable(model)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = module(images.bfloat16()).values()
    assert found.dtype == (torch.float32 if kept else torch.bfloat16)
    (exact,) = module(images.bfloat16().float()).values()
    assert torch.allclose(found.float(), exact, atol=1e-5 if kept else 0.1)
    found.sum().backward()
    assert all(one.grad.dtype == torch.float32 for one in module.parameters())
