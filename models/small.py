"""A residual network for pictures of 32 pixels as an ONNX graph, with random weights.

Pictures this small blur when they are enlarged to what a network for photographs takes, which
spends most of its time on that blur. This one is plain 3x3 convolutions, that a processor computes
near its peak: few and wide, pooled after the first of each stage, as in Jordan, "94% on CIFAR-10
in 3.29 Seconds on a Single GPU", arXiv:2404.00498; the second of each stage is added to its input
(He et al., "Deep Residual Learning for Image Recognition", CVPR 2016).
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INPUT_PX = 32
INPUT, FEATURE = "input", "feature"

_STEM = 32
_STAGES = (128, 384, 512)
# Fixed, so that the same seed gives the same bytes whatever version of onnx is installed.
_OPSET, _IR_VERSION = 17, 8


def build_small(*, seed: int) -> onnx.ModelProto:
    """Build the graph `input` (N, 3, 32, 32) -> `feature` (N, 512) with random weights.

    Args:
        seed: Fixes the weights, which are drawn as He et al., "Delving Deep into Rectifiers",
            ICCV 2015, say.

    Returns:
        The model, every BatchNorm a node of its own, N free.
    """
    graph = _Graph(np.random.default_rng(seed))
    last = graph.layer(INPUT, "stem", 3, _STEM)
    channels_in = _STEM
    for number, channels in enumerate(_STAGES, 1):
        last = graph.layer(last, f"stage{number}.widen", channels_in, channels, halve=True)
        added = graph.layer(last, f"stage{number}.residual", channels, channels)
        last = graph.node("Add", [last, added], f"stage{number}")
        channels_in = channels
    pooled = graph.node("GlobalAveragePool", [last], "pooled")
    graph.node("Flatten", [pooled], FEATURE)
    return graph.model(channels_in)


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def layer(
        self,
        source: str,
        name: str,
        channels_in: int,
        channels_out: int,
        *,
        halve: bool = False,
    ) -> str:
        """Add a 3x3 convolution, BatchNorm, perhaps a pooling that halves the sides, and ReLU."""
        shape = (channels_out, channels_in, 3, 3)
        weight = self._rng.normal(0, np.sqrt(2 / (9 * channels_in)), shape)
        inputs = [source, self._constant(f"{name}.weight", weight)]
        last = self.node("Conv", inputs, f"{name}.map", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        start = {"scale": 1.0, "shift": 0.0, "mean": 0.0, "variance": 1.0}
        parts = [
            self._constant(f"{name}.{part}", np.full(channels_out, value))
            for part, value in start.items()
        ]
        # Next to the convolution, which it is folded into when all is learned.
        last = self.node("BatchNormalization", [last, *parts], f"{name}.normal")
        if halve:
            sides = {"kernel_shape": [2, 2], "strides": [2, 2]}
            last = self.node("MaxPool", [last], f"{name}.half", **sides)
        return self.node("Relu", [last], name)

    def _constant(self, name: str, value: NDArray[np.float64]) -> str:
        self._constants.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def model(self, dims: int) -> onnx.ModelProto:
        """Finish the graph, whose features have `dims` values."""
        images = helper.make_tensor_value_info(
            INPUT, TensorProto.FLOAT, ["N", 3, INPUT_PX, INPUT_PX]
        )
        feature = helper.make_tensor_value_info(FEATURE, TensorProto.FLOAT, ["N", dims])
        graph = helper.make_graph(self._nodes, "small", [images], [feature], self._constants)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="lookalike",
        )
