"""Converts a Caffe network to ONNX, number for number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.caffe.layers.kind import Misfit, count
from models.caffe.network import Net, Shape
from models.caffe.outputs import Outputs, find_outputs
from models.caffe.prototxt import read_prototxt
from models.caffe.shapes import SizedLayer, fit, infer, needed_for, pictures
from models.caffe.weights import read_caffemodel
from models.graphs.optimise import optimise as optimised

# Fixed, so that the same files give the same bytes whatever version of onnx is installed.
_OPSET, _IR_VERSION = 17, 8


def to_onnx(
    prototxt: Path,
    weights: Path,
    *,
    feature: str,
    latent: str | None,
    add_sigmoid: bool = False,
    optimise: bool = True,
) -> onnx.ModelProto:
    """Convert a network, as far as its features and its code need it.

    Args:
        prototxt: Its description, in any of Caffe's formats.
        weights: Its weights.
        feature: Name of the layer or blob of features.
        latent: Name of the code layer or its blob, before or behind the sigmoid; None for a
            network without one.
        add_sigmoid: Whether a code layer without sigmoid gets one, instead of an error.
        optimise: Whether BatchNorm and Scale are folded into the layers before them. Without,
            both become one BatchNormalization, ready to be trained further.

    Returns:
        A model whose input has the name and the size of the prototxt's, (N, 3, H, W) with N
        free; its outputs have the names of the blobs: features (N, D) and latent values (N, B).
        The same files give the same bytes.

    Raises:
        NetworkError: The prototxt is wrong, or a layer that is needed is not supported.
        OptionError: There is no such feature or code.
        WeightsError: The weights are damaged or do not fit.
    """
    net = read_prototxt(prototxt)
    outputs = find_outputs(net, feature=feature, latent=latent, add_sigmoid=add_sigmoid)
    net = needed_for(net, {outputs.feature} | ({outputs.latent} if outputs.latent else set()))
    pictures(net)
    sized = infer(net)
    writer = _Writer(net, outputs)
    blobs = read_caffemodel(weights)
    for layer in sized:
        writer.add(layer, fit(layer, blobs, source=str(weights)))
    return optimised(writer.model(), fold_normalisation=optimise)


class _Writer:
    """The ONNX graph under construction."""

    def __init__(self, net: Net, outputs: Outputs) -> None:
        self._net, self._outputs = net, outputs
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        # A blob that a layer overwrites gets another name in ONNX, where names are written once.
        self._names = {name: name for name in net.inputs}
        self._shapes: dict[str, Shape] = dict(net.inputs)
        self._taken = {*net.inputs, outputs.feature, outputs.latent or outputs.feature}

    def add(self, sized: SizedLayer, blobs: list[NDArray[np.float32]]) -> None:
        layer = sized.layer
        step = _LayerStep(self, sized, [self._names[name] for name in layer.bottoms], blobs)
        try:
            made = sized.kind.write(step)
        except Misfit as problem:
            raise self._net.error(layer, str(problem)) from problem
        self._names.update(zip(layer.tops, made, strict=True))
        self._shapes.update(zip(layer.tops, sized.tops, strict=True))

    def node(self, name: str, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        output = self._unique(name)
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        name = self._unique(name)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _unique(self, name: str) -> str:
        found, number = name, 1
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found

    def model(self) -> onnx.ModelProto:
        outputs = self._outputs
        # Kept free for them; code and feature may be the same blob.
        self._taken.discard(outputs.feature)
        names = [self._output(outputs.feature)]
        if outputs.latent is not None:
            if outputs.latent != outputs.feature:
                self._taken.discard(outputs.latent)
            names.append(self._output(outputs.latent, sigmoid=outputs.bare))
        graph = helper.make_graph(
            self._nodes,
            self._net.name or "caffe",
            [_value(name, shape[1:]) for name, shape in self._net.inputs.items()],
            [_value(name, (dims,)) for name, dims in names],
            self._constants,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="lookalike",
        )

    def _output(self, blob: str, *, sigmoid: bool = False) -> tuple[str, int]:
        source, shape = self._names[blob], self._shapes[blob]
        if sigmoid:
            source = self.node(f"{blob}/sigmoid", "Sigmoid", [source])
        kind = "Identity" if len(shape) == 2 else "Flatten"
        return self.node(blob, kind, [source]), count(shape[1:])


class _LayerStep:
    """What a layer's kind sees of the writer: see `models.caffe.layers.kind.Step`."""

    def __init__(
        self,
        writer: _Writer,
        sized: SizedLayer,
        bottoms: list[str],
        blobs: list[NDArray[np.float32]],
    ) -> None:
        self.parameters = sized.layer.parameters
        self.bottoms, self.shapes, self.tops = bottoms, sized.bottoms, sized.tops
        self.blobs = blobs
        self._writer, self._layer = writer, sized.layer

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        return self._writer.node(f"{self._layer.name}/{kind}", kind, inputs, **attributes)

    def constant(self, role: str, value: NDArray[Any]) -> str:
        return self._writer.constant(f"{self._layer.name}/{role}", value)


def _value(name: str, sizes: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sizes])
