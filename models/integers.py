"""Turns a network's layers into 8-bit integers.

Static quantisation after training, by ONNX Runtime: Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, sections 2.1 and 2.2.
Each activation has one scale, from the least and the largest value that pictures gave it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, version_converter

from models.errors import NetworkError
from models.graphs.cost import multiplications
from models.graphs.rounding import LAYERS, round_weights
from models.onnx_engine import load_runtime

# Layers that hand integers on between those that compute. Pooling that averages a whole map is
# not among them, so features keep their fractions.
_BETWEEN = ("Add", "AveragePool", "Clip", "Concat", "MaxPool", "Relu")

# Of all multiplications, those of the first layers, which stay float. In EfficientNet-Lite0 that
# is the first block: a quarter fewer bits of a code change, at the same speed.
_START_SHARE = 1 / 16

# Scales for each channel came with this one.
_LEAST_OPSET = 13

Array = NDArray[np.float32]
Planes = Callable[[str], Iterator[Array]]


def to_integers(
    model: onnx.ModelProto, *, input_name: str, feature: str, planes: Planes
) -> onnx.ModelProto:
    """Let a network compute in 8-bit integers on its way to the feature.

    What the feature does not depend on stays as it is, the latent layer for one, and so do the
    layer that reads the picture and cheap ones behind it: little speed is lost, and their
    rounding would go through all others.

    Args:
        model: Any network; it may be changed.
        input_name: Its input, (N, 3, input_px, input_px).
        feature: Its output of features.
        planes: Called with what the pictures are for, twice; gives some of them at a time as the
            input takes them.

    Returns:
        A network with the same inputs and outputs.

    Raises:
        NetworkError: It has no layer to quantise, has been quantised, or ONNX Runtime cannot.
    """
    names = _named(model, input_name=input_name, feature=feature)
    try:
        model = _of_today(model)
        means = _input_means(model, names, input_name, planes("measuring"))
        return _quantised(round_weights(model, means), names, input_name, planes("calibrating"))
    # The errors of ONNX and ONNX Runtime share no base class of their own.
    except Exception as error:
        raise NetworkError(f"ONNX Runtime cannot quantise its network: {error}") from error


def _named(model: onnx.ModelProto, *, input_name: str, feature: str) -> list[str]:
    """Name the nodes to quantise; nodes without a name get one on the way.

    Raises:
        NetworkError: There is nothing to quantise, or somebody has done so before.
    """
    leading = _leading_to(model, feature)
    first = _last_of_the_start(model, leading, input_name)
    kinds = {node.name: node.op_type for node in leading[first + 1 :]}
    if any(kind.startswith(("QLinear", "QuantizeLinear")) for kind in kinds.values()):
        raise NetworkError("its network is in integers already")
    if not set(kinds.values()) & set(LAYERS):
        raise NetworkError(
            f"its network has no {' or '.join(LAYERS)} between its first layer and {feature!r} "
            "that integers would make faster"
        )
    return [name for name, kind in kinds.items() if kind in (*LAYERS, *_BETWEEN)]


def _leading_to(model: onnx.ModelProto, feature: str) -> list[onnx.NodeProto]:
    wanted, found = {feature}, []
    for index, node in reversed(list(enumerate(model.graph.node))):
        node.name = node.name or f"{node.op_type}_{index}"
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _last_of_the_start(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], input_name: str
) -> int:
    """Return the index of the last layer that stays float: the cheap ones at the start."""
    cost = multiplications(model)
    left = _START_SHARE * sum(cost.get(node.name, 0) for node in nodes)
    last = -1
    for index, node in enumerate(nodes):
        left -= cost.get(node.name, 0)
        if input_name in node.input or (left >= 0 and node.name in cost):
            last = index
    return last


def _of_today(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset >= _LEAST_OPSET:
        return model
    return version_converter.convert_version(model, _LEAST_OPSET)


def _input_means(
    model: onnx.ModelProto,
    names: list[str],
    input_name: str,
    planes: Iterator[Array],
) -> dict[str, NDArray[np.float64]]:
    """Return the mean input of each layer that computes, by channel."""
    layers = [each for each in model.graph.node if each.name in names and each.op_type in LAYERS]
    watched = {layer.input[0]: f"{layer.input[0]}.mean" for layer in layers}
    session = load_runtime().InferenceSession(_watched(model, layers, watched))
    sums: dict[str, NDArray[np.float64]] = {}
    count = 0
    for part in planes:
        count += len(part)
        values = session.run(list(watched.values()), {input_name: part})
        for source, value in zip(watched, values, strict=True):
            seen = value.reshape(len(part), -1).sum(axis=0, dtype=np.float64)
            sums[source] = sums.get(source, 0.0) + seen
    return {layer.name: sums[layer.input[0]] / count for layer in layers}


def _watched(
    model: onnx.ModelProto, layers: list[onnx.NodeProto], watched: dict[str, str]
) -> bytes:
    """Write the network with the means over positions of what layers read as outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    readers = {layer.input[0]: layer.op_type for layer in layers}
    for source, name in watched.items():
        kind = "GlobalAveragePool" if readers[source] == "Conv" else "Identity"
        copy.graph.node.append(helper.make_node(kind, [source], [name]))
        copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return bytes(copy.SerializeToString())


def _quantised(
    model: onnx.ModelProto, names: list[str], input_name: str, planes: Iterator[Array]
) -> onnx.ModelProto:
    load_runtime()
    from onnxruntime import quantization
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    # The quantiser warns where its own optimiser has not run; ours has.
    add_pre_process_metadata(model)
    with tempfile.TemporaryDirectory(prefix="lookalike-quantise-") as scratch:
        target = Path(scratch) / "network.onnx"
        quantization.quantize_static(
            model,
            target,
            _Reader(input_name, planes),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            nodes_to_quantize=names,
        )
        return onnx.load(target)


class _Reader:
    """Hands the quantiser one part of the pictures after the other."""

    def __init__(self, input_name: str, planes: Iterator[Array]) -> None:
        self._input_name, self._planes = input_name, planes

    def get_next(self) -> dict[str, Array] | None:
        """Return the next input of the network, or None."""
        part = next(self._planes, None)
        return None if part is None else {self._input_name: part}
