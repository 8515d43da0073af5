"""Convolution, its depthwise and transposed forms, and InnerProduct."""

from typing import Any, NamedTuple

import numpy as np

from models.caffe.layers.kind import Kind, Misfit, Step, count, pair, picture, positive_axis
from models.caffe.network import Shape

# Below this many weights (4 MB) a matrix product is written as a 1x1 convolution: it is computed
# image by image, and costs no more. See `_write_inner_product`.
_SMALL = 1 << 20


class _Window(NamedTuple):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int]
    group: int
    num_output: int

    def attributes(self) -> dict[str, Any]:
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "pads": [*self.pad, *self.pad],
            "dilations": list(self.dilation),
            "group": self.group,
        }

    def reach(self) -> tuple[int, int]:
        """Height and width that one output sees."""
        high, wide = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        return high, wide


def _window(parameters: Any, shape: Shape) -> _Window:
    conv = parameters.convolution_param
    if positive_axis(conv.axis, shape) != 1:
        raise Misfit(f"has axis {conv.axis}; only axis 1, the channels, is supported")
    has = conv.HasField
    if not (conv.kernel_size or (has("kernel_h") and has("kernel_w"))):
        raise Misfit("says no kernel_size; add it")
    window = _Window(
        kernel=pair(conv.kernel_size, conv.kernel_h, conv.kernel_w, has_pair=has("kernel_h")),
        stride=pair(
            conv.stride or [1],
            conv.stride_h or 1,
            conv.stride_w or 1,
            has_pair=has("stride_h") or has("stride_w"),
        ),
        pad=pair(
            conv.pad or [0],
            conv.pad_h,
            conv.pad_w,
            has_pair=has("pad_h") or has("pad_w"),
        ),
        dilation=pair(conv.dilation or [1], 1, 1, has_pair=False),
        group=_group(parameters, shape),
        num_output=conv.num_output,
    )
    channels = picture(shape)[1]
    if not all((*window.kernel, *window.stride, *window.dilation, window.num_output)):
        raise Misfit("has a kernel, stride, dilation or num_output of 0; give at least 1")
    if channels % window.group or window.num_output % window.group:
        raise Misfit(
            f"has {window.group} groups, which divide {channels} channels and num_output "
            f"{window.num_output} not evenly"
        )
    return window


def _group(parameters: Any, shape: Shape) -> int:
    conv = parameters.convolution_param
    depthwise = "Depthwise" in parameters.type
    group = picture(shape)[1] if depthwise and not conv.HasField("group") else conv.group
    if not group:
        raise Misfit("has group 0; give at least 1")
    return int(group)


def _tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    window = _window(parameters, shapes[0])
    batch, _, *sides = picture(shapes[0])
    out = [
        (side + 2 * pad - reach) // stride + 1
        for side, pad, reach, stride in zip(
            sides, window.pad, window.reach(), window.stride, strict=True
        )
    ]
    if min(out) < 1:
        raise Misfit(
            f"sees {window.reach()} pixels and gets {tuple(sides)}; its kernel is too large"
        )
    return [(batch, window.num_output, *out)]


def _blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    window = _window(parameters, shapes[0])
    channels = picture(shapes[0])[1]
    weight = (window.num_output, channels // window.group, *window.kernel)
    bias = [(window.num_output,)] if parameters.convolution_param.bias_term else []
    return [weight, *bias]


def _write(step: Step) -> list[str]:
    return [_write_as(step, "Conv")]


def _write_as(step: Step, kind: str) -> str:
    names = ("weight", "bias")
    constants = [step.constant(*named) for named in zip(names, step.blobs, strict=False)]
    window = _window(step.parameters, step.shapes[0])
    return step.node(kind, [step.bottoms[0], *constants], **window.attributes())


def _transposed_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    window = _window(parameters, shapes[0])
    batch, _, *sides = picture(shapes[0])
    out = [
        stride * (side - 1) + reach - 2 * pad
        for side, pad, reach, stride in zip(
            sides, window.pad, window.reach(), window.stride, strict=True
        )
    ]
    if min(out) < 1:
        raise Misfit(f"makes a picture of {tuple(out)} pixels; its pad is too large")
    return [(batch, window.num_output, *out)]


def _transposed_blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    window = _window(parameters, shapes[0])
    channels = picture(shapes[0])[1]
    weight = (channels, window.num_output // window.group, *window.kernel)
    bias = [(window.num_output,)] if parameters.convolution_param.bias_term else []
    return [weight, *bias]


def _write_transposed(step: Step) -> list[str]:
    return [_write_as(step, "ConvTranspose")]


def _split(parameters: Any, shape: Shape) -> tuple[Shape, int]:
    """Return the axes that an InnerProduct keeps, and how many values it takes together."""
    axis = positive_axis(parameters.inner_product_param.axis, shape)
    if not axis:
        raise Misfit("multiplies over axis 0 and would mix the images of a batch; use axis 1")
    return shape[:axis], count(shape[axis:])


def _inner_product_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    kept, _ = _split(parameters, shapes[0])
    outputs = parameters.inner_product_param.num_output
    if not outputs:
        raise Misfit("has num_output 0; give at least 1")
    return [(*kept, outputs)]


def _inner_product_blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    product = parameters.inner_product_param
    _, values = _split(parameters, shapes[0])
    weight = (product.num_output, values)
    bias = [(product.num_output,)] if product.bias_term else []
    return [weight[::-1] if product.transpose else weight, *bias]


def _write_inner_product(step: Step) -> list[str]:
    """Write a small product as a convolution, and a large one as what it is.

    A convolution is computed image by image, so that no bit of a code depends on the company
    an image is in. A large product as a convolution would read its weights once for each image,
    which takes four times as long for four; ONNX Runtime's product over packed weights gives
    each row the same bits whatever the number of rows, and a test holds it to that.
    """
    transpose = step.parameters.inner_product_param.transpose
    weight = step.blobs[0].T if transpose else step.blobs[0]
    kept, values = _split(step.parameters, step.shapes[0])
    if len(kept) > 1:
        return [_write_by_position(step, weight, kept, values)]
    if weight.size > _SMALL:
        flat = (
            step.node("Flatten", [step.bottoms[0]])
            if len(step.shapes[0]) != 2
            else step.bottoms[0]
        )
        return [step.node("Gemm", [flat, *_constants(step, weight)], transB=1)]
    source = step.bottoms[0]
    if step.shapes[0][2:] != (1, 1):
        shape = step.constant("shape", np.array([0, values, 1, 1], np.int64))
        source = step.node("Reshape", [source, shape])
    constants = _constants(step, weight[:, :, None, None])
    return [step.node("Flatten", [step.node("Conv", [source, *constants], kernel_shape=[1, 1])])]


def _constants(step: Step, weight: Any) -> list[str]:
    bias = [step.constant("bias", step.blobs[1])] if len(step.blobs) > 1 else []
    return [step.constant("weight", weight), *bias]


def _write_by_position(step: Step, weight: Any, kept: Shape, values: int) -> str:
    shape = step.constant("shape", np.array([0, *kept[1:], values], np.int64))
    source = step.node("Reshape", [step.bottoms[0], shape])
    weight_name, *bias = _constants(step, weight.T)
    product = step.node("MatMul", [source, weight_name])
    return step.node("Add", [product, *bias]) if bias else product


CONVOLUTION = Kind(_tops, _write, _blobs)
DECONVOLUTION = Kind(_transposed_tops, _write_transposed, _transposed_blobs)
INNER_PRODUCT = Kind(_inner_product_tops, _write_inner_product, _inner_product_blobs)
