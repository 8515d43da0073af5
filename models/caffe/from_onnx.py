"""Writes an ONNX network as Caffe files, with layers of stock Caffe 1.0 alone.

Two things have no layer of their own there. ReLU6 is made of ReLU, Power and Eltwise: what is
over 6 is taken away again, so that values up to 6 stay as they are to the last bit. Padding that
differs between the sides, as TensorFlow's "same" has it at stride 2, is a larger padding on all
sides with the surplus rows and columns sliced off the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from models.caffe.windows import Cut, Window, convolution_cut, pooling_cut
from models.caffe.write import NetWriter
from models.errors import NetworkError

CAFFE_FORM_VERSION = 1
"""Raised whenever this module would write other files from the same network."""

_BATCH = 10
_COMMENT = "Written from an ONNX network by lookalike; layers of stock Caffe 1.0."


@dataclass(frozen=True)
class CaffeForm:
    """A network as Caffe files, and what its blobs are called.

    Attributes:
        prototxt: Contents of a deploy prototxt.
        weights: Contents of a caffemodel.
        blobs: Name of the blob of each of the network's inputs and outputs.
    """

    prototxt: bytes
    weights: bytes
    blobs: dict[str, str]


def from_onnx(model: onnx.ModelProto) -> CaffeForm:
    """Write a network with one input as Caffe files that compute the same.

    Args:
        model: Of the operators Add, AveragePool, Clip (from 0), Concat, Conv, Dropout, Flatten,
            Gemm, GlobalAveragePool, Identity, LRN, MaxPool, Relu, Reshape, Sigmoid and
            Unsqueeze; constants are initializers. Equal models give equal bytes.

    Raises:
        NetworkError: An operator or an attribute has no counterpart; the message names it.
    """
    return _Translation(shape_inference.infer_shapes(model)).form()


@dataclass(frozen=True)
class _Node:
    """A node with one output that matters."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, node: onnx.NodeProto) -> "_Node":
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        return cls(node.name, node.op_type, tuple(node.input), node.output[0], attributes)

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


class _Translation:
    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._graph = graph
        self._constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self._shapes = {
            value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._net = NetWriter(graph.name or "network")
        self._blobs: dict[str, str] = {}
        self._used: set[str] = set()

    def form(self) -> CaffeForm:
        inputs = [one for one in self._graph.input if one.name not in self._constants]
        if len(inputs) != 1:
            raise NetworkError(f"expected a network with one input, found {len(inputs)}")
        source = inputs[0].name
        if not all(self._shapes[source][1:]):
            raise NetworkError(f"the input {source!r} has no fixed size")
        self._net.input(self._name(source), (_BATCH, *self._shapes[source][1:]))
        for node in self._graph.node:
            self._translate(_Node.of(node))
        ends = [source, *(output.name for output in self._graph.output)]
        return CaffeForm(
            self._net.prototxt(_COMMENT).encode(),
            self._net.caffemodel(),
            {end: self._blobs[end] for end in ends},
        )

    def _translate(self, node: _Node) -> None:
        writers: dict[str, Callable[[_Node], None]] = {
            "Add": self._add,
            "AveragePool": self._pool,
            "Clip": self._clip,
            "Concat": self._concat,
            "Conv": self._convolution,
            "Dropout": self._same,
            "Flatten": self._flatten,
            "Gemm": self._inner_product,
            "GlobalAveragePool": self._global_pool,
            "Identity": self._same,
            "LRN": self._lrn,
            "MaxPool": self._pool,
            "Relu": self._simple("ReLU"),
            "Reshape": self._reshape,
            "Sigmoid": self._simple("Sigmoid"),
            "Unsqueeze": self._unsqueeze,
        }
        if node.kind not in writers:
            raise _unsupported(node, "has no counterpart among Caffe's layers")
        writers[node.kind](node)

    def _name(self, value: str) -> str:
        """Give a value's blob, and the layer that makes it, a name of their own."""
        name = value.replace("/", "_").strip("_") or "blob"
        while name in self._used:
            name += "_"
        self._used.add(name)
        self._blobs[value] = name
        return name

    def _layer(self, node: _Node, kind: str, *bottoms: str) -> Any:
        """Add a layer that makes the node's first output of some values."""
        if constants := [bottom for bottom in bottoms if bottom not in self._blobs]:
            raise _unsupported(node, f"computes with {constants[0]!r}, which is a constant")
        sources = [self._blobs[bottom] for bottom in bottoms]
        return self._net.layer(self._name(node.output), kind, sources)

    def _simple(self, kind: str) -> Callable[[_Node], None]:
        def write(node: _Node) -> None:
            self._layer(node, kind, node.inputs[0])

        return write

    def _same(self, node: _Node) -> None:
        self._blobs[node.output] = self._blobs[node.inputs[0]]

    def _add(self, node: _Node) -> None:
        shapes = {self._shapes.get(name, ())[1:] for name in node.inputs}
        if len(shapes) != 1 or not all(*shapes):
            raise _unsupported(node, "adds what is a constant or not of the same fixed shape")
        self._layer(node, "Eltwise", *node.inputs)

    def _clip(self, node: _Node) -> None:
        low, high = self._bounds(node)
        if low != 0:
            raise _unsupported(node, f"cuts below {low:g}, and only 0 can be written")
        if not np.isfinite(high):
            self._layer(node, "ReLU", node.inputs[0])
            return
        source, base = self._blobs[node.inputs[0]], node.output
        positive, over = self._name(f"{base}_positive"), self._name(f"{base}_over")
        self._net.layer(positive, "ReLU", [source])
        self._net.layer(f"{over}_shift", "Power", [positive], [over]).power_param.shift = -high
        self._net.layer(f"{over}_relu", "ReLU", [over], [over])
        self._net.layer(self._name(base), "Eltwise", [positive, over]).eltwise_param.coeff.extend(
            [1, -1]
        )

    def _bounds(self, node: _Node) -> tuple[float, float]:
        """Read the limits, which are inputs since opset 11 and were attributes before."""
        given = [*node.inputs[1:], "", ""][:2]
        if any(name and name not in self._constants for name in given):
            raise _unsupported(node, "computes its limits, which have to be constants")
        low, high = (
            float(self._constants[name]) if name else float(node.get(key, missing))
            for name, key, missing in zip(given, ("min", "max"), (-np.inf, np.inf), strict=True)
        )
        return low, high

    def _flatten(self, node: _Node) -> None:
        if node.get("axis", 1) != 1:
            raise _unsupported(node, "flattens more or less than each image")
        self._layer(node, "Flatten", node.inputs[0])

    def _unsqueeze(self, node: _Node) -> None:
        constant = len(node.inputs) > 1
        axes = list(self._constant(node, 1)) if constant else node.get("axes")
        if len(self._shapes.get(node.inputs[0], ())) != 2 or axes != [2, 3]:
            raise _unsupported(node, "makes anything but a map of one pixel")
        shape = self._layer(node, "Reshape", node.inputs[0]).reshape_param.shape
        shape.dim.extend([0, 0, 1, 1])  # 0: as it was

    def _reshape(self, node: _Node) -> None:
        sizes = [int(size) for size in self._constant(node, 1)]
        if not sizes or sizes[0] > 0 or node.get("allowzero", 0):
            raise _unsupported(node, "makes a fixed number of images")
        # 0 and -1 mean the same in both.
        self._layer(node, "Reshape", node.inputs[0]).reshape_param.shape.dim.extend(sizes)

    def _concat(self, node: _Node) -> None:
        if node.get("axis") != 1:
            raise _unsupported(node, "puts together anything but channels")
        self._layer(node, "Concat", *node.inputs)

    def _global_pool(self, node: _Node) -> None:
        pooling = self._layer(node, "Pooling", node.inputs[0]).pooling_param
        pooling.pool, pooling.global_pooling = 1, True

    def _lrn(self, node: _Node) -> None:
        lrn = self._layer(node, "LRN", node.inputs[0]).lrn_param
        lrn.local_size, lrn.k = node.get("size"), node.get("bias", 1.0)
        lrn.alpha, lrn.beta = node.get("alpha", 1e-4), node.get("beta", 0.75)

    def _inner_product(self, node: _Node) -> None:
        weight = self._constant(node, 1)
        if not node.get("transB", 0):
            weight = weight.T
        if node.get("transA", 0):
            raise _unsupported(node, "transposes its input")
        weight = weight * np.float32(node.get("alpha", 1.0))
        layer = self._layer(node, "InnerProduct", node.inputs[0])
        layer.inner_product_param.num_output = len(weight)
        blobs = [np.ascontiguousarray(weight, np.float32)]
        layer.inner_product_param.bias_term = len(node.inputs) > 2
        if len(node.inputs) > 2:
            bias = self._constant(node, 2) * np.float32(node.get("beta", 1.0))
            blobs.append(np.broadcast_to(bias, (len(weight),)).astype(np.float32))
        self._net.blobs[layer.name] = blobs

    def _constant(self, node: _Node, index: int) -> NDArray[Any]:
        name = node.inputs[index]
        if name not in self._constants:
            raise _unsupported(node, f"computes {name!r}, which has to be a constant")
        return self._constants[name]

    def _convolution(self, node: _Node) -> None:
        weight = self._constant(node, 1).astype(np.float32)
        if weight.ndim != 4 or len(set(node.get("dilations", [1]))) > 1:
            raise _unsupported(node, "is not two-dimensional, or dilated unevenly")
        dilation = node.get("dilations", [1])[0]
        kernel = [(side - 1) * dilation + 1 for side in weight.shape[2:]]
        cuts = [convolution_cut(one) for one in self._windows(node, kernel)]
        top = self._top(node, cuts)
        layer = self._net.layer(top, "Convolution", [self._blobs[node.inputs[0]]])
        parameters = layer.convolution_param
        parameters.num_output = len(weight)
        parameters.group = node.get("group", 1)
        parameters.kernel_h, parameters.kernel_w = weight.shape[2:]
        parameters.stride_h, parameters.stride_w = node.get("strides", [1, 1])
        parameters.pad_h, parameters.pad_w = (cut.pad for cut in cuts)
        if dilation > 1:
            parameters.dilation.append(dilation)
        self._net.blobs[top] = [weight]
        parameters.bias_term = len(node.inputs) > 2
        if len(node.inputs) > 2:
            self._net.blobs[top].append(self._constant(node, 2).astype(np.float32))
        self._slice(node, top, cuts)

    def _pool(self, node: _Node) -> None:
        pads = node.get("pads", [0, 0, 0, 0])
        average, counted = node.kind == "AveragePool", node.get("count_include_pad", 0)
        # What the padding counts for in a mean differs otherwise.
        if average and (pads[:2] != pads[2:] if counted else any(pads[:2])):
            raise _unsupported(node, "pads in a way that Caffe's average pooling does not")
        if set(node.get("dilations", [1])) != {1}:
            raise _unsupported(node, "is dilated")
        kernel = node.get("kernel_shape")
        found = [pooling_cut(one) for one in self._windows(node, kernel)]
        cuts = [cut for cut in found if cut is not None]
        if len(cuts) != len(found):
            raise _unsupported(node, "pads more than Caffe's pooling does")
        top = self._top(node, cuts)
        layer = self._net.layer(top, "Pooling", [self._blobs[node.inputs[0]]])
        parameters = layer.pooling_param
        parameters.pool = int(average)
        parameters.kernel_h, parameters.kernel_w = kernel
        parameters.stride_h, parameters.stride_w = node.get("strides", [1, 1])
        parameters.pad_h, parameters.pad_w = (cut.pad for cut in cuts)
        self._slice(node, top, cuts)

    def _windows(self, node: _Node, kernel: Sequence[int]) -> list[Window]:
        if node.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise _unsupported(node, "pads automatically; write its pads down")
        ends = (node.inputs[0], node.output)
        sides, counts = (self._shapes.get(name, ())[2:] for name in ends)
        if len(sides) != 2 or len(counts) != 2 or not all((*sides, *counts)):
            raise _unsupported(node, "has an input whose height or width is not fixed")
        strides, pads = node.get("strides", [1, 1]), node.get("pads", [0, 0])
        return [Window(*axis) for axis in zip(sides, kernel, strides, pads, counts, strict=False)]

    def _top(self, node: _Node, cuts: Sequence[Cut]) -> str:
        """Name the blob that the windows make: another one where some of it is sliced off."""
        counts = self._shapes[node.output][2:]
        whole = all(cut.total == count for cut, count in zip(cuts, counts, strict=True))
        return self._name(node.output if whole else f"{node.output}_padded")

    def _slice(self, node: _Node, top: str, cuts: Sequence[Cut]) -> None:
        """Keep the windows that are wanted of a blob that has more."""
        value = node.output
        for axis, cut in enumerate(cuts, start=2):
            count = self._shapes[value][axis]
            if cut.total == count:
                continue
            ends = [end for end in (cut.skip, cut.skip + count) if 0 < end < cut.total]
            kept = 1 if cut.skip else 0
            tops = [self._name(f"{value}_cut{axis}_{part}") for part in range(len(ends) + 1)]
            layer = self._net.layer(self._name(f"{value}_slice{axis}"), "Slice", [top], tops)
            layer.slice_param.axis = axis
            layer.slice_param.slice_point.extend(ends)
            top = tops.pop(kept)
            # What nobody reads would be an output of the network.
            self._net.layer(f"{layer.name}_rest", "Silence", tops, [])
        self._blobs[value] = top


def _unsupported(node: _Node, problem: str) -> NetworkError:
    return NetworkError(
        f"the node {node.name or node.output!r} ({node.kind}) {problem}; this network has "
        "an ONNX form only"
    )
