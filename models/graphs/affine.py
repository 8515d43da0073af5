"""Nodes that scale and shift each channel, and the nodes that can take that over."""

from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from models.graphs.graph import Graph, attribute, set_attribute

AFFINE = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Sub"})
"""Nodes that may scale and shift each channel."""

ABSORBERS = frozenset({"BatchNormalization", "Conv", "Gemm"})
"""Nodes that may take that over."""

Vector = NDArray[np.float64]


class Affine(NamedTuple):
    """`scale * source + shift`, each a number or shape=(C,), dtype=float64."""

    source: str
    scale: Vector
    shift: Vector


def affine_of(graph: Graph, node: onnx.NodeProto, *, axes: int, channels: int) -> Affine | None:
    """Read a node as a scale and a shift of each channel.

    Args:
        graph: Where its constants are.
        node: Any node.
        axes: How many axes its input has; the channel is the second.
        channels: C.

    Returns:
        What it computes; None where it computes something else.
    """
    if node.op_type == "BatchNormalization":
        return _of_normalisation(graph, node)
    if node.op_type not in AFFINE:
        return None
    constants = [graph.value(name) for name in node.input]
    if (constants[0] is None) == (constants[1] is None):
        return None
    constant_first = constants[0] is not None
    value = constants[0] if constants[0] is not None else constants[1]
    vector = _by_channel(value, axes, channels)
    if vector is None:
        return None
    source = node.input[1] if constant_first else node.input[0]
    return _of_arithmetic(node.op_type, source, vector, constant_first=constant_first)


def _of_normalisation(graph: Graph, node: onnx.NodeProto) -> Affine | None:
    constants = [graph.value(name) for name in node.input[1:5]]
    if attribute(node, "training_mode", 0) or any(list(node.output)[1:]):
        return None
    gamma, beta, mean, variance = constants
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return Affine(node.input[0], scale, beta - mean * scale)


def _of_arithmetic(
    kind: str, source: str, value: Vector, *, constant_first: bool
) -> Affine | None:
    one, zero = np.ones(()), np.zeros(())
    if kind == "Add":
        return Affine(source, one, value)
    if kind == "Sub":
        return Affine(source, -one, value) if constant_first else Affine(source, one, -value)
    if kind == "Mul":
        return Affine(source, value, zero)
    if constant_first or not value.all():
        return None
    return Affine(source, 1 / value, zero)


def _by_channel(value: NDArray[np.float64] | None, axes: int, channels: int) -> Vector | None:
    """Read a constant that is broadcast as one number or as one for each channel."""
    if value is None or value.dtype != np.float64 or value.ndim > axes:
        return None
    if value.size == 1:
        return value.reshape(())
    full = (1,) * (axes - value.ndim) + value.shape
    if full != (1, channels) + (1,) * (axes - 2):
        return None
    return value.reshape(channels)


def absorber(graph: Graph, node: onnx.NodeProto) -> tuple[int, int] | None:
    """Tell whether a node can take over a scale and a shift behind it.

    Returns:
        How many axes and channels its output has; None where it cannot.
    """
    constants = [graph.value(name) for name in list(node.input)[1:] if name]
    if not constants or any(value is None for value in constants):
        return None
    weight = constants[0]
    if weight is None or weight.dtype != np.float64:
        return None
    if node.op_type == "Conv":
        return weight.ndim, weight.shape[0]
    if node.op_type == "Gemm":
        return 2, weight.shape[0 if attribute(node, "transB", 0) else 1]
    # A picture's channels: (N, C, H, W).
    return None if _of_normalisation(graph, node) is None else (4, weight.size)


def absorb(graph: Graph, node: onnx.NodeProto, affine: Affine) -> None:
    """Change a node's constants so that its output is scaled and shifted already.

    Args:
        graph: Where its constants are.
        node: One for which `absorber` gives an answer; changed.
        affine: What follows it.
    """
    if node.op_type == "BatchNormalization":
        _absorb_in_normalisation(graph, node, affine)
        return
    weight = np.asarray(graph.value(node.input[1]))
    bias = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    bias = np.asarray(bias)
    if node.op_type == "Gemm":
        bias = bias * attribute(node, "beta", 1.0)
        set_attribute(node, "beta", 1.0)
        last = not attribute(node, "transB", 0)
        weight = weight * (affine.scale if last else affine.scale.reshape(-1, 1))
        bias = bias * affine.scale + affine.shift
    else:
        bias = np.broadcast_to(bias * affine.scale + affine.shift, weight.shape[:1])
        weight = weight * affine.scale.reshape(-1, *(1,) * (weight.ndim - 1))
    _replace(graph, node, weight=weight, bias=bias)


def _absorb_in_normalisation(graph: Graph, node: onnx.NodeProto, affine: Affine) -> None:
    gamma, beta = (np.asarray(graph.value(name)) for name in node.input[1:3])
    _replace(graph, node, weight=gamma * affine.scale, bias=beta * affine.scale + affine.shift)


def _replace(graph: Graph, node: onnx.NodeProto, *, weight: Vector, bias: Vector) -> None:
    dtype = graph.dtype(node.input[1])
    name = node.output[0]
    constants = [
        graph.add_constant(f"{name}.weight", weight, dtype),
        graph.add_constant(f"{name}.bias", bias, dtype),
    ]
    inputs = [node.input[0], *constants, *list(node.input)[3:]]
    del node.input[:]
    node.input.extend(inputs)
