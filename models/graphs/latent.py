"""Cuts a network off behind its features, and puts a latent layer on them."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.errors import NetworkError

LATENT = "latent"
"""Name of the output that `with_latent` adds."""


def features_of(model: onnx.ModelProto, feature: str) -> onnx.ModelProto:
    """Return a copy of a network with nothing in it but what makes the features.

    Args:
        model: The network; it stays as it is.
        feature: Name of one of its outputs.

    Raises:
        NetworkError: There is no such output.
    """
    graph = model.graph
    outputs = [output for output in graph.output if output.name == feature]
    if not outputs:
        there = ", ".join(output.name for output in graph.output)
        raise NetworkError(f"the network has no output {feature!r}; choose among {there}")
    wanted, nodes = {feature}, []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    constants = [each for each in graph.initializer if each.name in wanted]
    inputs = [each for each in graph.input if each.name in wanted]
    cut = helper.make_graph(nodes[::-1], graph.name, inputs, outputs, constants)
    return _like(model, cut)


def with_latent(
    model: onnx.ModelProto, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> onnx.ModelProto:
    """Return a copy of a network with a latent sigmoid layer on its features.

    Args:
        model: A network whose only output is a feature (N, D), as `features_of` returns it.
        weight: shape=(B, D), a row for each bit.
        bias: shape=(B,).

    Returns:
        The network with the output `latent` (N, B) beside its feature.

    Raises:
        NetworkError: The features are of another size than the layer.
    """
    (feature,) = model.graph.output
    dims = feature.type.tensor_type.shape.dim[-1].dim_value
    if weight.shape != (len(bias), dims):
        raise NetworkError(f"expected a layer of shape ({len(bias)}, {dims}), got {weight.shape}")
    constants: dict[str, NDArray[Any]] = {
        "latent.weight": weight[:, :, None, None].astype(np.float32),
        "latent.bias": bias.astype(np.float32),
    }
    nodes = []
    point = _before_flattening(model)
    if point is None:
        point = "latent.point"
        constants["latent.axes"] = np.array([2, 3], np.int64)
        nodes.append(helper.make_node("Unsqueeze", [feature.name, "latent.axes"], [point]))
    # A 1x1 convolution and not a matrix product over the batch: it is computed image by image,
    # so no bit can depend on the company that an image is in.
    inputs = [point, "latent.weight", "latent.bias"]
    nodes += [
        helper.make_node("Conv", inputs, ["latent.raw"], kernel_shape=[1, 1]),
        helper.make_node("Flatten", ["latent.raw"], ["latent.flat"]),
        helper.make_node("Sigmoid", ["latent.flat"], [LATENT]),
    ]
    graph = helper.make_graph(
        [*model.graph.node, *nodes],
        model.graph.name,
        model.graph.input,
        [feature, helper.make_tensor_value_info(LATENT, TensorProto.FLOAT, ["N", len(bias)])],
        [
            *model.graph.initializer,
            *(numpy_helper.from_array(value, name) for name, value in constants.items()),
        ],
    )
    return _like(model, graph)


def _before_flattening(model: onnx.ModelProto) -> str | None:
    """Return the map of (N, D, 1, 1) that the feature is a flat form of, if it is one."""
    feature = model.graph.output[0].name
    flat = [node for node in model.graph.node if feature in node.output]
    if not flat or flat[0].op_type != "Flatten":
        return None
    shapes = {
        info.name: info.type.tensor_type.shape.dim
        for info in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    source: str = flat[0].input[0]
    sides = [dim.dim_value for dim in shapes.get(source, ())][2:]
    return source if sides == [1, 1] else None


def _like(model: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )
