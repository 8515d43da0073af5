"""Makes an embedding network out of any ONNX network: pictures in, chosen values out."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from models.errors import NetworkError, OptionError, first_line

# Older files lack the shapes and forms of operators that the rest of lookalike relies on.
_LEAST_OPSET = 11
_PASSED_ON = ("Flatten", "Identity", "Reshape", "Squeeze")


def embedding_of(
    model: onnx.ModelProto, *, input_name: str | None, side_px: int | None, outputs: Sequence[str]
) -> onnx.ModelProto:
    """Return a copy of a network with a free batch, a fixed side and the chosen outputs.

    Args:
        model: The network; it stays as it is.
        input_name: Its input of pictures; None where it has one input only.
        side_px: Height and width of the pictures; None for what the network says.
        outputs: Names of any values in it, each of them one vector an image: (N, D), or with
            further axes of length 1.

    Returns:
        A network with the input (N, 3, side, side) and the outputs (N, D), which keep their
        names unless they had to be flattened.

    Raises:
        OptionError: An input or a value is not there, or the side does not fit.
        NetworkError: One is not of such a shape, or the network contradicts itself.
    """
    _check_opset(model)
    source = _source(model.graph, input_name)
    side = _side(source, side_px)
    fixed = _fixed(model, source.name, side)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*fixed.graph.value_info, *fixed.graph.output)
    }
    made = {name for node in model.graph.node for name in node.output}
    nodes = list(model.graph.node)
    ends = [_flat(name, shapes, made, nodes) for name in outputs]
    return _assembled(model, nodes, (source.name, side), ends)


def is_sigmoid(model: onnx.ModelProto, output: str) -> bool:
    """Tell whether a value is what a sigmoid gives, perhaps in another shape."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSED_ON:
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Sigmoid"


def scale_input(model: onnx.ModelProto, factors: Sequence[float]) -> onnx.ModelProto:
    """Return a copy of a network that multiplies each channel of its input first.

    Args:
        model: A network with the input (N, 3, side, side).
        factors: One for each channel.
    """
    scaled = onnx.ModelProto()
    scaled.CopyFrom(model)
    graph, source = scaled.graph, scaled.graph.input[0].name
    readers = [node for node in graph.node if source in node.input]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = [node.input[1] for node in readers if _takes_factors(node, tensors)]
    shared = any(sum(name in node.input for node in graph.node) > 1 for name in weights)
    if len(weights) == len(readers) and not shared:
        for name in weights:
            value = numpy_helper.to_array(tensors[name])
            values = np.asarray(factors, np.float32)[:, None, None]
            tensors[name].CopyFrom(numpy_helper.from_array(value * values, name))
        return scaled
    _multiply(scaled, readers, factors)
    return scaled


def _takes_factors(node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto]) -> bool:
    """Tell whether the factors can go into a node's weights."""
    group = next((one.i for one in node.attribute if one.name == "group"), 1)
    return node.op_type == "Conv" and group == 1 and node.input[1] in tensors


def _multiply(
    model: onnx.ModelProto, readers: Sequence[onnx.NodeProto], factors: Sequence[float]
) -> None:
    graph, source = model.graph, model.graph.input[0].name
    values = np.asarray(factors, np.float32)[None, :, None, None]
    graph.initializer.append(numpy_helper.from_array(values, "input_factors"))
    for node in readers:
        node.input[:] = ["scaled_input" if name == source else name for name in node.input]
    first = helper.make_node("Mul", [source, "input_factors"], ["scaled_input"])
    nodes = [first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _check_opset(model: onnx.ModelProto) -> None:
    opsets = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    if max(opsets, default=0) < _LEAST_OPSET:
        raise NetworkError(
            f"the network is written for opset {max(opsets, default=0)}, expected at least "
            f"{_LEAST_OPSET}; convert it with onnx.version_converter or export it again"
        )


def _source(graph: onnx.GraphProto, name: str | None) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in graph.initializer}
    inputs: dict[str, onnx.ValueInfoProto] = {
        one.name: one for one in graph.input if one.name not in constants
    }
    there = ", ".join(inputs) or "none"
    if name is None and len(inputs) == 1:
        name = next(iter(inputs))
    if name is None or name not in inputs:
        said = "its input was not named" if name is None else f"it has no input {name!r}"
        raise OptionError(f"the network takes {there}, and {said}; name it with --input")
    if others := [one for one in inputs if one != name]:
        raise NetworkError(
            f"the network needs more than pictures: {', '.join(others)}; export it without"
        )
    return inputs[name]


def _side(source: onnx.ValueInfoProto, side_px: int | None) -> int:
    tensor = source.type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    if len(shape) != 4 or shape[1] not in (0, 3) or tensor.elem_type != TensorProto.FLOAT:
        raise NetworkError(
            f"the input {source.name!r} has shape {shape}, expected float32 pictures of shape "
            "(N, 3, side, side)"
        )
    height, width = (size or side_px or 0 for size in shape[2:])
    if not height or height != width:
        raise NetworkError(
            f"the input {source.name!r} takes pictures of {height} x {width} pixels (0: any), "
            "expected a square; say its side with --crop"
        )
    if side_px not in (None, height):
        raise OptionError(
            f"the input {source.name!r} takes {height} pixels, not {side_px}; leave --crop out"
        )
    return height


def _fixed(model: onnx.ModelProto, source: str, side: int) -> onnx.ModelProto:
    """Infer the shapes of all values for single pictures of a side."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    _set_input(copy.graph, source, side, batch=1)
    for output in copy.graph.output:
        # What the file says may be of another batch.
        output.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(copy, data_prop=True)
    except Exception as error:  # onnx raises classes of its own that share no base
        raise NetworkError(f"the network contradicts itself: {first_line(error)}") from error


def _set_input(graph: onnx.GraphProto, name: str, side: int, *, batch: int | str) -> None:
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, side, side])
    del graph.input[:]
    graph.input.append(value)


def _flat(
    name: str, shapes: dict[str, list[int]], made: set[str], nodes: list[onnx.NodeProto]
) -> tuple[str, int]:
    """Return the name and the length of a value once it is flat, adding a node if it is not."""
    if name not in made:
        raise OptionError(
            f"the network makes no value {name!r}; the last ones that it makes are "
            f"{', '.join(list(shapes)[-8:])}"
        )
    shape = shapes.get(name, [])
    sizes = shape[1:]
    if not sizes or not all(sizes) or any(size != 1 for size in sizes[1:]):
        raise NetworkError(
            f"the value {name!r} has shape {shape or 'unknown'}, expected (N, D): one vector an "
            "image; choose a value behind the pooling"
        )
    if len(sizes) == 1:
        return name, sizes[0]
    flat = f"{name}_flat"
    nodes.append(helper.make_node("Flatten", [name], [flat], name=flat))
    return flat, sizes[0]


def _assembled(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    source: tuple[str, int],
    ends: Sequence[tuple[str, int]],
) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    _set_input(graph, *source, batch="N")
    wanted, kept = {name for name, _ in ends}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    constants = [one for one in graph.initializer if one.name in wanted]
    del graph.node[:], graph.initializer[:], graph.value_info[:], graph.output[:]
    graph.node.extend(kept[::-1])
    graph.initializer.extend(constants)
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in ends
    )
    return made
