"""Rounds weights to 8-bit integers, and takes the mean of what that changes out of the biases.

Weights get one scale for each output channel (Krishnamoorthi, "Quantizing deep convolutional
networks for efficient inference", arXiv:1806.08342, section 3.1). Inputs behind a ReLU are never
negative, so the rounding of a channel's weights does not average out over a picture but shifts
all its outputs one way; the bias takes that back (Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction", ICCV 2019, section 4.2).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from models.graphs.graph import Graph, attribute

LAYERS = ("Conv", "Gemm")
"""Kinds of nodes whose weights are rounded."""

_MOST = 127
_WEIGHT, _BIAS = 1, 2
# A channel of nothing but zeros needs a scale too.
_LEAST_SCALE = 1e-12


def round_weights(
    model: onnx.ModelProto, means: Mapping[str, NDArray[np.floating[Any]]]
) -> onnx.ModelProto:
    """Round the weights of some layers; they stay float, at values that integers can hold.

    Args:
        model: Any network; it stays as it is.
        means: Name of a node of a kind in `LAYERS` -> mean of its input over pictures and
            positions, shape=(C,). Where weight or bias are no constants the node is left alone.

    Returns:
        The network with weights rounded and biases corrected.
    """
    graph = Graph(model)
    for node in graph.nodes:
        if node.name in means and _is_plain(node, graph):
            _round(node, graph, means[node.name])
    return graph.model()


def _is_plain(node: onnx.NodeProto, graph: Graph) -> bool:
    if node.op_type == "Gemm" and (
        attribute(node, "transA", 0)
        or attribute(node, "alpha", 1.0) != 1
        or attribute(node, "beta", 1.0) != 1
    ):
        return False
    return all(graph.is_constant(name) for name in node.input[_WEIGHT:] if name)


def _round(node: onnx.NodeProto, graph: Graph, mean: NDArray[np.floating[Any]]) -> None:
    weight = graph.value(node.input[_WEIGHT])
    if weight is None:
        return
    turned = node.op_type == "Gemm" and not attribute(node, "transB", 0)
    rows = weight.T if turned else weight
    rounded = _rounded(rows)
    shift = _shift(rounded - rows, mean)
    dtype = graph.dtype(node.input[_WEIGHT])
    stem = node.input[_WEIGHT]
    node.input[_WEIGHT] = graph.add_constant(stem, rounded.T if turned else rounded, dtype)
    has_bias = len(node.input) > _BIAS and node.input[_BIAS]
    bias = graph.value(node.input[_BIAS]) if has_bias else None
    corrected = (0.0 if bias is None else bias) - shift
    del node.input[_BIAS:]
    node.input.append(graph.add_constant(f"{stem}.bias", corrected, dtype))


def _rounded(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round each row, shape=(O, ...), to multiples of a 127th of its largest value."""
    axes = tuple(range(1, weight.ndim))
    # The scale is float32 where the network runs; in double the two would round apart.
    scale = (abs(weight).max(axes, keepdims=True) / _MOST).astype(np.float32).astype(np.float64)
    rounded: NDArray[np.float64] = np.round(weight / np.maximum(scale, _LEAST_SCALE)) * scale
    return rounded


def _shift(change: NDArray[np.float64], mean: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return how far a change of the weights moves the mean of each output, shape=(O,).

    What padding takes away at the border of a map is left out of account.
    """
    outputs, inputs = change.shape[:2]
    summed = change.reshape(outputs, inputs, -1).sum(axis=2)
    groups = len(mean) // inputs
    of_group = summed.reshape(groups, -1, inputs)
    shift: NDArray[np.float64] = np.einsum("goi,gi->go", of_group, mean.reshape(groups, inputs))
    return shift.reshape(-1)
