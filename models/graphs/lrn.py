"""Normalisation across channels, written so that ONNX Runtime computes it fast.

Its LRN takes a power of every value by itself, which in a CaffeNet costs a fifth of the time. The
power that networks use is 3/4, and that is two square roots.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from models.graphs.graph import Graph, attribute

# Roots and products are rounded alike wherever a value stands among others; a power need not be,
# and then a code's bits could depend on the batch. So other powers stay with LRN.
_POWERS = (0.5, 0.75, 1.0)
# Since then Squeeze and Unsqueeze take their axes as an input.
_OPSET = 13


def expand_lrn(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write every LRN with a beta of 3/4, 1/2 or 1 as pooling over channels and roots.

    Args:
        model: Any network; it stays as it is.

    Returns:
        A network whose numbers differ by rounding only.
    """
    graph = Graph(model)
    if graph.has_subgraphs or graph.opset < _OPSET:
        return model
    graph.nodes = [made for node in graph.nodes for made in _expanded(graph, node)]
    return graph.model()


def _expanded(graph: Graph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    power = round(attribute(node, "beta", 0.75), 6)
    if node.op_type != "LRN" or power not in _POWERS:
        return [node]
    source, size = node.input[0], attribute(node, "size", 1)
    chain = _Chain(graph, node.output[0])
    before = (size - 1) // 2
    axis = chain.constant("axis", np.array([1]), onnx.TensorProto.INT64)
    # A picture with one channel, whose depth the channels are: pooling runs over them.
    chain.add("Unsqueeze", chain.add("Mul", source, source), axis)
    mean = chain.add(
        "AveragePool",
        chain.last,
        kernel_shape=[size, 1, 1],
        pads=[before, 0, 0, size - 1 - before, 0, 0],
        count_include_pad=1,
    )
    chain.add("Mul", chain.add("Squeeze", mean, axis), chain.number("alpha", node, 1e-4))
    chain.add("Add", chain.last, chain.number("bias", node, 1.0))
    _add_power(chain, power)
    return chain.divided(source)


def _add_power(chain: "_Chain", power: float) -> None:
    if power == 1:
        return
    root = chain.add("Sqrt", chain.last)
    if power == 0.75:
        chain.add("Mul", root, chain.add("Sqrt", root))


class _Chain:
    """Nodes in the place of one."""

    def __init__(self, graph: Graph, output: str) -> None:
        self._graph, self._output = graph, output
        self._nodes: list[onnx.NodeProto] = []
        self.last = ""

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.last = f"{self._output}/{kind}_{len(self._nodes)}"
        self._append(kind, inputs, self.last, attributes)
        return self.last

    def divided(self, source: str) -> list[onnx.NodeProto]:
        """End with a source divided by what was made, under the name of the old output."""
        self._append("Div", (source, self.last), self._output, {})
        return self._nodes

    def _append(
        self, kind: str, inputs: tuple[str, ...], output: str, attributes: dict[str, Any]
    ) -> None:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def constant(self, role: str, value: NDArray[Any], dtype: int) -> str:
        return self._graph.add_constant(f"{self._output}/{role}", value, dtype)

    def number(self, role: str, node: onnx.NodeProto, default: float) -> str:
        """Make a constant of an attribute."""
        value = np.array(attribute(node, role, default))
        return self.constant(role, value, onnx.TensorProto.FLOAT)
