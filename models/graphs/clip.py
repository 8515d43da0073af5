"""ReLU6 as networks write it that have no such layer, found and written as one Clip.

Caffe 1.0 knows ReLU, scaling and sums. With them `min(max(x, 0), 6)` is either
`6 - relu(6 - relu(x))` or `relu(x) - relu(x - 6)`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from models.graphs.affine import affine_of
from models.graphs.graph import Graph

_Makers = Mapping[str, onnx.NodeProto]
# Before this version of ONNX a Clip has its bounds elsewhere.
_OPSET = 11
# Longer chains of arithmetic are not what these forms are made of.
_LONGEST = 4


class _Line(NamedTuple):
    """`scale * source + shift`, with plain numbers."""

    source: str
    scale: float
    shift: float


def rewrite_clips(graph: Graph) -> None:
    """Put a Clip wherever one of the two forms ends; what only led to it falls away unused."""
    if graph.opset < _OPSET:
        return
    makers = {node.output[0]: node for node in graph.nodes}
    for index, node in enumerate(graph.nodes):
        found = _nested(graph, makers, node) or _difference(graph, makers, node)
        if found is not None:
            graph.nodes[index] = _clip(graph, node.output[0], *found)


def _clip(graph: Graph, output: str, source: str, high: float) -> onnx.NodeProto:
    bounds = [
        graph.add_constant(f"{output}.{name}", np.array(value), onnx.TensorProto.FLOAT)
        for name, value in (("low", 0.0), ("high", high))
    ]
    return helper.make_node("Clip", [source, *bounds], [output], name=output)


def _nested(graph: Graph, makers: _Makers, node: onnx.NodeProto) -> tuple[str, float] | None:
    """Match `high - relu(high - relu(x))`."""
    outer = _line(graph, makers, node.output[0])
    inner = _line(graph, makers, _relu_of(makers, outer.source))
    source = _relu_of(makers, inner.source)
    if outer.scale == inner.scale == -1 and outer.shift == inner.shift > 0 and source:
        return source, outer.shift
    return None


def _difference(graph: Graph, makers: _Makers, node: onnx.NodeProto) -> tuple[str, float] | None:
    """Match `relu(x) - relu(x - high)`."""
    if node.op_type not in ("Add", "Sub"):
        return None
    first, second = (_line(graph, makers, name) for name in node.input)
    sign = second.scale if node.op_type == "Add" else -second.scale
    source = _relu_of(makers, first.source)
    shifted = _line(graph, makers, _relu_of(makers, second.source))
    plain = (first.scale, sign, first.shift, second.shift, shifted.scale) == (1, -1, 0, 0, 1)
    # relu(relu(x) - high) is relu(x - high).
    if plain and source and shifted.source in (source, first.source) and shifted.shift < 0:
        return source, -shifted.shift
    return None


def _relu_of(makers: _Makers, name: str) -> str:
    """Return what goes into the Relu that makes a name; empty where none does."""
    maker = makers.get(name)
    return maker.input[0] if maker is not None and maker.op_type == "Relu" else ""


def _line(graph: Graph, makers: _Makers, name: str) -> _Line:
    """Follow scaling and shifting by plain numbers back to where it begins."""
    line = _Line(name, 1.0, 0.0)
    for _ in range(_LONGEST):
        maker = makers.get(line.source)
        step = None if maker is None else affine_of(graph, maker, axes=1, channels=1)
        if step is None or step.scale.ndim or step.shift.ndim:
            break
        scale, shift = float(step.scale), float(step.shift)
        line = _Line(step.source, line.scale * scale, line.scale * shift + line.shift)
    return line
