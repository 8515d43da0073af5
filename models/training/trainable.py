"""An ONNX network as a PyTorch module whose weights can be trained, and back. Needs PyTorch.

One mechanism for every base: EfficientNet-Lite, converted Caffe networks and imported ONNX files
all arrive as a graph and leave as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

from models.errors import TrainingError

# Which inputs of a node are learned; everything else that is constant stays as it is.
_LEARNED: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1,),
    "BatchNormalization": (1, 2),
    "PRelu": (1,),
}
_RUNNING: dict[str, tuple[int, ...]] = {"BatchNormalization": (3, 4)}
# Share of a batch in the running mean and variance.
_NORM_MOMENTUM = 0.1

Attributes = dict[str, Any]
Operation = Callable[["Trainable", list[Any], Attributes], Any]


class Trainable(torch.nn.Module):
    """Runs the nodes of a graph in their order.

    Weights of convolutions, matrix products and normalisations are parameters, running means and
    variances are buffers, all by the names that the graph gives them.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Take over the weights of a graph.

        Args:
            model: One input (N, 3, H, W) float32; any outputs.

        Raises:
            TrainingError: The graph holds an operation that cannot be trained here.
        """
        super().__init__()
        self._model = model
        self._nodes = [_Node(node) for node in model.graph.node]
        self._input = model.graph.input[0].name
        self._outputs = [output.name for output in model.graph.output]
        self._keys: dict[str, str] = {}
        self._fixed: dict[str, Any] = {}
        self._take_constants()

    def _take_constants(self) -> None:
        learned, running = _wanted(self._nodes, _LEARNED), _wanted(self._nodes, _RUNNING)
        for index, constant in enumerate(self._model.graph.initializer):
            value = numpy_helper.to_array(constant)
            tensor = torch.from_numpy(value.copy())
            key = f"tensor_{index}"
            if constant.name in learned:
                self._keys[constant.name] = key
                self.register_parameter(key, torch.nn.Parameter(tensor))
            elif value.dtype == np.float32:
                self._keys[constant.name] = key
                self.register_buffer(key, tensor, persistent=constant.name in running)
            else:
                self._fixed[constant.name] = value

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the graph.

        Args:
            images: shape=(N, 3, H, W), dtype=float32.

        Returns:
            Every output of the graph by name.
        """
        values: dict[str, Any] = {name: getattr(self, key) for name, key in self._keys.items()}
        values.update(self._fixed)
        values[self._input] = images
        for node in self._nodes:
            inputs = [values[name] if name else None for name in node.inputs]
            values[node.output] = node.run(self, inputs, node.attributes)
        return {name: values[name] for name in self._outputs}

    def to_onnx(self) -> onnx.ModelProto:
        """Return the graph with the weights as they are now."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        for constant in model.graph.initializer:
            if constant.name in self._keys:
                value = getattr(self, self._keys[constant.name]).detach().cpu().contiguous()
                constant.CopyFrom(numpy_helper.from_array(value.numpy(), constant.name))
        return model


class _Node:
    """One node, its attributes as Python values."""

    def __init__(self, node: onnx.NodeProto) -> None:
        if node.op_type not in _OPERATIONS:
            raise TrainingError(
                f"the network cannot be fine-tuned: operation {node.op_type} of node "
                f"{node.name or node.output[0]!r} is not among {', '.join(sorted(_OPERATIONS))}; "
                "train without --finetune"
            )
        self.kind = node.op_type
        self.run = _OPERATIONS[node.op_type]
        self.inputs = list(node.input)
        self.output = node.output[0]
        self.attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _wanted(nodes: list[_Node], places: dict[str, tuple[int, ...]]) -> set[str]:
    return {
        node.inputs[place]
        for node in nodes
        for place in places.get(node.kind, ())
        if place < len(node.inputs)
    }


def _padded(images: Any, attributes: Attributes, value: float) -> Any:
    """Pad as ONNX says: all the starts, then all the ends."""
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if not (top or left or bottom or right):
        return images
    return functional.pad(images, (left, right, top, bottom), value=value)


def _symmetric(attributes: Attributes) -> tuple[int, int] | None:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    return (top, left) if (top, left) == (bottom, right) else None


def _convolution(_: Trainable, inputs: list[Any], attributes: Attributes) -> Any:
    images, weight, *bias = inputs
    groups = attributes.get("group", 1)
    # A layer that pads by itself saves a copy of its input.
    padding = _symmetric(attributes)
    with _precise(images, wanted=groups > 1) as images:
        return functional.conv2d(
            images if padding is not None else _padded(images, attributes, 0.0),
            weight,
            bias[0] if bias else None,
            stride=tuple(attributes.get("strides", (1, 1))),
            padding=padding or (0, 0),
            dilation=tuple(attributes.get("dilations", (1, 1))),
            groups=groups,
        )


@contextmanager
def _precise(images: torch.Tensor, *, wanted: bool) -> Iterator[torch.Tensor]:
    """Compute in float32 on a CPU, if wanted, where precision is mixed elsewhere.

    The gradients of grouped convolutions take it several times as long in bfloat16.
    """
    if not (wanted and images.device.type == "cpu"):
        yield images
        return
    with torch.autocast("cpu", enabled=False):
        yield images.float()


def _normalisation(module: Trainable, inputs: list[Any], attributes: Attributes) -> Any:
    images, gamma, beta, mean, variance = inputs
    return functional.batch_norm(
        images,
        mean,
        variance,
        gamma,
        beta,
        training=module.training,
        momentum=_NORM_MOMENTUM,
        eps=attributes.get("epsilon", 1e-5),
    )


def _product(_: Trainable, inputs: list[Any], attributes: Attributes) -> Any:
    left, right, *bias = inputs
    left = left.T if attributes.get("transA") else left
    right = right.T if attributes.get("transB") else right
    product = attributes.get("alpha", 1.0) * (left @ right)
    return product + attributes.get("beta", 1.0) * bias[0] if bias else product


def _largest(_: Trainable, inputs: list[Any], attributes: Attributes) -> Any:
    images, attributes = _ceiled(inputs[0], attributes)
    return functional.max_pool2d(
        _padded(images, attributes, -torch.inf),
        tuple(attributes["kernel_shape"]),
        tuple(attributes.get("strides", (1, 1))),
    )


def _average(_: Trainable, inputs: list[Any], attributes: Attributes) -> Any:
    images, attributes = _ceiled(inputs[0], attributes)
    window = tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1)))
    sums = functional.avg_pool2d(_padded(images, attributes, 0.0), *window)
    if attributes.get("count_include_pad", 0):
        return sums
    # Both are averages over whole windows: their quotient is the one over what is not padding.
    ones = torch.ones_like(images[:1, :1])
    return sums / functional.avg_pool2d(_padded(ones, attributes, 0.0), *window)


def _ceiled(images: Any, attributes: Attributes) -> tuple[Any, Attributes]:
    """Turn "round the size up" into more padding at the ends."""
    if not attributes.get("ceil_mode"):
        return images, attributes
    pads = list(attributes.get("pads", (0, 0, 0, 0)))
    strides = attributes.get("strides", (1, 1))
    for axis in (0, 1):
        size = images.shape[2 + axis] + pads[axis] + pads[2 + axis]
        pads[2 + axis] += -(size - attributes["kernel_shape"][axis]) % strides[axis]
    return images, {**attributes, "pads": pads}


def _local_response(_: Trainable, inputs: list[Any], attributes: Attributes) -> Any:
    return functional.local_response_norm(
        inputs[0],
        attributes["size"],
        alpha=attributes.get("alpha", 1e-4),
        beta=attributes.get("beta", 0.75),
        k=attributes.get("bias", 1.0),
    )


def _clip(_: Trainable, inputs: list[Any], __: Attributes) -> Any:
    images, low, high = [*inputs, None, None][:3]
    if low is None or high is None:
        bounds = (None if bound is None else float(bound) for bound in (low, high))
        return images.clamp(*bounds)
    # The same as `clamp`, whose gradient takes five passes; a third of the time of ReLU6 networks.
    return functional.hardtanh(images, float(low), float(high))


def _pad(_: Trainable, inputs: list[Any], __: Attributes) -> Any:
    images, pads = inputs[0], [int(value) for value in inputs[1]]
    half = len(pads) // 2
    # PyTorch counts from the last axis on, a pair for each.
    pairs = [(pads[axis], pads[half + axis]) for axis in reversed(range(half))]
    value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    return functional.pad(images, [each for pair in pairs for each in pair], value=value)


def _reshape(_: Trainable, inputs: list[Any], __: Attributes) -> Any:
    images, shape = inputs[0], [int(size) for size in inputs[1]]
    return images.reshape([images.shape[axis] if s == 0 else s for axis, s in enumerate(shape)])


def _unsqueeze(_: Trainable, inputs: list[Any], __: Attributes) -> Any:
    images = inputs[0]
    for axis in sorted(int(axis) for axis in inputs[1]):
        images = images.unsqueeze(axis)
    return images


def _dropout(module: Trainable, inputs: list[Any], attributes: Attributes) -> Any:
    ratio = float(inputs[1]) if len(inputs) > 1 else attributes.get("ratio", 0.5)
    return functional.dropout(inputs[0], ratio, training=module.training)


def _simple(function: Callable[..., Any]) -> Operation:
    """An operation that needs nothing but its inputs."""
    return lambda _module, inputs, _attributes: function(*inputs)


_OPERATIONS: dict[str, Operation] = {
    "Add": _simple(torch.add),
    "AveragePool": _average,
    "BatchNormalization": _normalisation,
    "Clip": _clip,
    "Concat": lambda _, inputs, attributes: torch.cat(inputs, attributes["axis"]),
    "Conv": _convolution,
    "Dropout": _dropout,
    "Elu": lambda _, inputs, attributes: functional.elu(inputs[0], attributes.get("alpha", 1.0)),
    "Flatten": lambda _, inputs, attributes: inputs[0].flatten(attributes.get("axis", 1)),
    "Gemm": _product,
    "GlobalAveragePool": lambda _, inputs, __: inputs[0].mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda _, inputs, __: inputs[0].amax((2, 3), keepdim=True),
    "Identity": _simple(lambda images: images),
    "LRN": _local_response,
    "LeakyRelu": lambda _, inputs, attributes: functional.leaky_relu(
        inputs[0], attributes.get("alpha", 0.01)
    ),
    "MatMul": _simple(torch.matmul),
    "Max": _simple(torch.maximum),
    "MaxPool": _largest,
    "Mul": _simple(torch.mul),
    "PRelu": _simple(lambda images, slope: torch.where(images > 0, images, images * slope)),
    "Pad": _pad,
    "Relu": _simple(functional.relu),
    "Reshape": _reshape,
    "Sigmoid": _simple(torch.sigmoid),
    "Softmax": lambda _, inputs, attributes: inputs[0].softmax(attributes.get("axis", -1)),
    "Sub": _simple(torch.sub),
    "Tanh": _simple(torch.tanh),
    "Unsqueeze": _unsqueeze,
}
