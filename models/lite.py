"""EfficientNet-Lite as an ONNX graph, with a latent sigmoid layer on its pooled features.

EfficientNet-Lite is EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excite, with ReLU6
in place of swish and with a stem and a head that do not grow with the width multiplier. The
latent layer is that of Lin et al., "Deep Learning of Binary Hash Codes for Fast Image
Retrieval", CVPRW 2015, section 3.2.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.errors import WeightsError

GRAPH_VERSION = 1
"""Raised whenever this module would build another graph from the same weights."""

DIMS = 1280
INPUT, FEATURE, LATENT = "input", "feature", "latent"

_STEM = 32
_BATCH_NORM_EPSILON = 1e-3
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
# Fixed, so that the same weights give the same bytes whatever version of onnx is installed.
_OPSET, _IR_VERSION = 17, 8

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Variant:
    """One member of the family: how far the base network is widened and deepened."""

    width: float
    depth: float
    input_px: int


VARIANTS = {
    "lite0": Variant(width=1.0, depth=1.0, input_px=224),
    "lite1": Variant(width=1.0, depth=1.1, input_px=240),
    "lite2": Variant(width=1.1, depth=1.2, input_px=260),
    "lite3": Variant(width=1.2, depth=1.4, input_px=280),
    "lite4": Variant(width=1.4, depth=1.8, input_px=300),
}


@dataclass(frozen=True)
class Block:
    """One inverted residual block; channel counts are those of its input and output."""

    kernel: int
    stride: int
    expand: int
    channels_in: int
    channels_out: int


# (repeats, kernel, stride, expansion, channels) of each stage at width and depth 1.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def blocks(variant: Variant) -> list[Block]:
    """List the blocks of a variant, input first."""
    found: list[Block] = []
    channels_in = _STEM
    for stage, (repeats, kernel, stride, expand, channels) in enumerate(_STAGES):
        # The Lite family deepens neither the first nor the last stage.
        fixed = stage in (0, len(_STAGES) - 1)
        channels_out = _scaled_channels(channels, variant.width)
        for repeat in range(repeats if fixed else math.ceil(repeats * variant.depth)):
            step = stride if repeat == 0 else 1
            found.append(Block(kernel, step, expand, channels_in, channels_out))
            channels_in = channels_out
    return found


def _scaled_channels(channels: int, width: float) -> int:
    """Multiply and round to a multiple of 8, never down by more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def build_lite(
    variant: Variant,
    weights: Weights,
    latent_weight: NDArray[np.floating[Any]],
    latent_bias: NDArray[np.floating[Any]],
) -> onnx.ModelProto:
    """Build the graph `input` (N, 3, H, W) -> `feature` (N, 1280), `latent` (N, B).

    Args:
        variant: A value of `VARIANTS`; fixes H and W.
        weights: Tensors by the names that EfficientNet's PyTorch port gives them.
        latent_weight: shape=(B, 1280), a row for each bit.
        latent_bias: shape=(B,).

    Returns:
        The model, BatchNorm folded into the convolutions, N free. The same arguments give the
        same bytes on every machine.

    Raises:
        WeightsError: A tensor is missing or has another shape than the variant needs.
    """
    graph = _Graph(weights, variant.input_px, fold=True)
    pooled = _add_backbone(graph, variant)
    _add_latent(graph, pooled, latent_weight, latent_bias)
    return graph.model(variant.input_px, {FEATURE: DIMS, LATENT: len(latent_bias)})


def build_backbone(variant: Variant, weights: Weights, *, input_px: int) -> onnx.ModelProto:
    """Build the graph `input` (N, 3, H, W) -> `feature` (N, 1280) as training needs it.

    Args:
        variant: A value of `VARIANTS`.
        weights: Tensors by the names that EfficientNet's PyTorch port gives them.
        input_px: H and W; the weights fit any.

    Returns:
        The model, every BatchNorm a node of its own, N free.

    Raises:
        WeightsError: A tensor is missing or has another shape than the variant needs.
    """
    graph = _Graph(weights, input_px, fold=False)
    _add_backbone(graph, variant)
    return graph.model(input_px, {FEATURE: DIMS})


def _add_backbone(graph: "_Graph", variant: Variant) -> str:
    """Add everything up to the features; returns the pooled values before they are flattened."""
    last = graph.convolution(INPUT, "_conv_stem", "_bn0", (_STEM, 3, 3, 3), stride=2)
    stages = blocks(variant)
    for index, block in enumerate(stages):
        last = _add_block(graph, last, f"_blocks.{index}", block)
    last = graph.convolution(last, "_conv_head", "_bn1", (DIMS, stages[-1].channels_out, 1, 1))
    pooled = graph.node("GlobalAveragePool", [last])
    graph.node("Flatten", [pooled], output=FEATURE)
    return pooled


def _add_block(graph: "_Graph", source: str, name: str, block: Block) -> str:
    wide = block.channels_in * block.expand
    last = source
    if block.expand != 1:
        shape = (wide, block.channels_in, 1, 1)
        last = graph.convolution(last, f"{name}._expand_conv", f"{name}._bn0", shape)
    shape = (wide, 1, block.kernel, block.kernel)
    last = graph.convolution(
        last, f"{name}._depthwise_conv", f"{name}._bn1", shape, stride=block.stride, groups=wide
    )
    shape = (block.channels_out, wide, 1, 1)
    last = graph.convolution(
        last, f"{name}._project_conv", f"{name}._bn2", shape, activation=False
    )
    if block.stride == 1 and block.channels_in == block.channels_out:
        last = graph.node("Add", [last, source])
    return last


def _add_latent(
    graph: "_Graph",
    pooled: str,
    weight: NDArray[np.floating[Any]],
    bias: NDArray[np.floating[Any]],
) -> None:
    if weight.shape != (len(bias), DIMS):
        raise WeightsError(
            f"expected a latent weight of shape ({len(bias)}, {DIMS}), got {weight.shape}"
        )
    # A 1x1 convolution and not a matrix product over the batch: it is computed image by image,
    # so no bit can depend on the company that an image is in.
    inputs = [
        pooled,
        graph.constant("latent.weight", weight[:, :, None, None].astype(np.float32)),
        graph.constant("latent.bias", bias.astype(np.float32)),
    ]
    flat = graph.node("Flatten", [graph.node("Conv", inputs, kernel_shape=[1, 1])])
    graph.node("Sigmoid", [flat], output=LATENT)


class _Graph:
    """Nodes and constants under construction, and the side of the feature map so far."""

    def __init__(self, weights: Weights, input_px: int, *, fold: bool) -> None:
        self._weights = weights
        self._side_px = input_px
        self._fold = fold
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._clip = [
            self.constant("zero", np.array(0, np.float32)),
            self.constant("six", np.array(6, np.float32)),
        ]

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        name = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def convolution(
        self,
        source: str,
        name: str,
        norm: str,
        shape: tuple[int, int, int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> str:
        """Add a convolution and its BatchNorm, and ReLU6 unless told not to."""
        attributes = {
            "kernel_shape": list(shape[2:]),
            "strides": [stride, stride],
            "pads": self._pads(shape[2], stride),
            "group": groups,
        }
        add = self._add_folded if self._fold else self._add_separate
        last = add(source, name, norm, shape, attributes)
        return self.node("Clip", [last, *self._clip]) if activation else last

    def _add_folded(
        self, source: str, name: str, norm: str, shape: tuple[int, ...], attributes: dict[str, Any]
    ) -> str:
        weight, bias = self._folded(name, norm, shape)
        inputs = [
            source,
            self.constant(f"{name}.weight", weight),
            self.constant(f"{name}.bias", bias),
        ]
        return self.node("Conv", inputs, **attributes)

    def _add_separate(
        self, source: str, name: str, norm: str, shape: tuple[int, ...], attributes: dict[str, Any]
    ) -> str:
        weight = self._tensor(f"{name}.weight", shape).astype(np.float32)
        last = self.node("Conv", [source, self.constant(f"{name}.weight", weight)], **attributes)
        parts = [
            self.constant(f"{name}{norm}.{part}", value.astype(np.float32))
            for part, value in zip(_NORM_PARTS, self._norm(norm, shape), strict=True)
        ]
        return self.node("BatchNormalization", [last, *parts], epsilon=_BATCH_NORM_EPSILON)

    def _pads(self, kernel: int, stride: int) -> list[int]:
        """TensorFlow's "same": what cannot be halved goes to the bottom and the right."""
        out_px = math.ceil(self._side_px / stride)
        total = max((out_px - 1) * stride + kernel - self._side_px, 0)
        self._side_px = out_px
        return [total // 2, total // 2, total - total // 2, total - total // 2]

    def _norm(self, norm: str, shape: tuple[int, ...]) -> list[NDArray[np.float64]]:
        return [self._tensor(f"{norm}.{part}", shape[:1]) for part in _NORM_PARTS]

    def _folded(
        self, name: str, norm: str, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = self._tensor(f"{name}.weight", shape)
        gamma, beta, mean, variance = self._norm(norm, shape)
        scale = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
        folded = weight * scale[:, None, None, None]
        return folded.astype(np.float32), (beta - mean * scale).astype(np.float32)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        if name not in self._weights:
            raise WeightsError(f"the weights have no tensor {name}: they are of another network")
        value = self._weights[name]
        if value.shape != shape:
            raise WeightsError(f"expected {name} to have shape {shape}, got {value.shape}")
        return value.astype(np.float64)

    def model(self, input_px: int, outputs: Mapping[str, int]) -> onnx.ModelProto:
        """Finish the graph; `outputs` are names and how many values each has for an image."""
        images = helper.make_tensor_value_info(
            INPUT, TensorProto.FLOAT, ["N", 3, input_px, input_px]
        )
        found = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
            for name, size in outputs.items()
        ]
        graph = helper.make_graph(
            self._nodes, "efficientnet-lite", [images], found, self._constants
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="lookalike",
        )
