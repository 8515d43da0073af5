"""What the layers of a network cost."""

import math

import onnx
from onnx import shape_inference

from models.graphs.graph import Graph

_WEIGHT = 1


def multiplications(model: onnx.ModelProto) -> dict[str, int]:
    """Count the multiplications of each Conv and Gemm for one picture, in the order of the nodes.

    Args:
        model: A network whose input has a fixed size and whose nodes have names.

    Returns:
        Name of the node -> multiplications. Nodes whose weight is no constant, or whose output
        has no fixed size, are left out.
    """
    shapes = _shapes(shape_inference.infer_shapes(model))
    graph = Graph(model)
    found = {}
    for node in graph.nodes:
        weight = graph.value(node.input[_WEIGHT]) if node.op_type in ("Conv", "Gemm") else None
        # Behind pictures and channels.
        positions = shapes.get(node.output[0], [0, 0, 0])[2:]
        if weight is not None and all(positions):
            found[node.name] = weight.size * math.prod(positions)
    return found


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the sizes of the network's values; 0 where one is not fixed."""
    graph = model.graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
