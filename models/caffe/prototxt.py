"""Reads a prototxt of any of Caffe's formats into the network that runs in the TEST phase."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.caffe.legacy import upgrade
from models.caffe.network import MOST_AXES, Layer, Net, Shape
from models.caffe.text import ParsedLayer, ParsedNet, parse
from models.errors import NetworkError

_TEST = 1
# Sides and channels of the largest picture that a network could be meant for.
_LARGEST_DIM = 1 << 20
_SOURCES = {
    "AnnotatedData",
    "Data",
    "DummyData",
    "HDF5Data",
    "ImageData",
    "MemoryData",
    "Python",
    "WindowData",
}
_FOR_TRAINING = {"Accuracy", "HDF5Output", "Silence"}


def read_prototxt(path: Path) -> Net:
    """Read the description of a network.

    Args:
        path: A deploy or a train_val prototxt, in today's format (`layer` with a type in
            quotes), that of 2014 (`layers` with `type: CONVOLUTION`) or the first one
            (`layers { layer { type: "conv" } }`, padding in layers of its own).

    Returns:
        The network in today's terms. Layers of another phase, of data, loss and accuracy are
        left out; a data layer that says how large its pictures are becomes an input.

    Raises:
        NetworkError: The file cannot be read, is not a prototxt, names a blob that no earlier
            layer makes, or does not say how large the input is; with file and line.
    """
    parsed = parse(path)
    layers = upgrade(parsed.layers) if parsed.old else parsed.layers
    state = parsed.parameters.state
    kept = [layer for layer in layers if _runs(layer.parameters, state)]
    return _Assembly(path, parsed, kept).net()


def is_for_training(kind: str) -> bool:
    """Tell whether a layer only measures what a network gives, or throws it away."""
    return kind in _FOR_TRAINING or kind.endswith("Loss")


def _runs(layer: Any, state: Any) -> bool:
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def _meets(rule: Any, state: Any) -> bool:
    stages = set(state.stage)
    return (
        (not rule.HasField("phase") or rule.phase == _TEST)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and stages.issuperset(rule.stage)
        and stages.isdisjoint(rule.not_stage)
    )


class _Assembly:
    """Follows the blobs from layer to layer, and drops what only training needs."""

    def __init__(self, path: Path, parsed: ParsedNet, layers: Sequence[ParsedLayer]) -> None:
        self._path, self._parsed, self._layers = path, parsed, layers
        self._inputs: dict[str, Shape] = {}
        self._known: set[str] = set()
        # Labels and what is made of them: known, but nothing that a picture could give.
        self._dropped: set[str] = set()
        self._pads: dict[str, tuple[str, int]] = {}

    def net(self) -> Net:
        parameters = self._parsed.parameters
        for name, shape in _declared_inputs(self._path, parameters).items():
            self._add_input(name, shape, line=1)
        kept = [self._layer(parsed) for parsed in self._layers]
        if not self._inputs:
            raise NetworkError(
                f"{self._path} does not say how large its input is; give the deploy prototxt, "
                'or add: input: "data" input_shape { dim: 1 dim: 3 dim: 224 dim: 224 }'
            )
        layers = tuple(layer for layer in kept if layer is not None)
        return Net(self._path, parameters.name, self._inputs, layers)

    def _layer(self, parsed: ParsedLayer) -> Layer | None:
        parameters = parsed.parameters
        kind, bottoms, tops = parameters.type, tuple(parameters.bottom), tuple(parameters.top)
        if kind == "Input" or (kind in _SOURCES and not bottoms):
            self._add_source(parsed)
            return None
        for bottom in bottoms:
            if bottom not in self._known | self._dropped:
                raise self._error(
                    parsed,
                    f"reads the blob {bottom!r}, which no layer before it makes; correct the "
                    "name or the order",
                )
        if is_for_training(kind) or self._dropped.intersection(bottoms):
            self._dropped.update(top for top in tops if top not in self._known)
            return None
        return self._keep(parsed, bottoms, tops or (parameters.name,))

    def _keep(
        self, parsed: ParsedLayer, bottoms: tuple[str, ...], tops: tuple[str, ...]
    ) -> Layer | None:
        parameters = parsed.parameters
        if parameters.type == "Padding":
            self._remember_padding(parsed, bottoms, tops)
            return None
        layer = Layer(
            parameters.name,
            parameters.type,
            bottoms,
            tops,
            parameters,
            parsed.line,
            parsed.unknown,
        )
        if any(bottom in self._pads for bottom in bottoms):
            layer = self._padded(parsed, layer)
        for top in tops:
            if top in self._known and top not in bottoms:
                raise self._error(
                    parsed, f"makes the blob {top!r} a second time; give its top another name"
                )
            self._pads.pop(top, None)
            self._dropped.discard(top)
            self._known.add(top)
        return layer

    def _remember_padding(
        self, parsed: ParsedLayer, bottoms: tuple[str, ...], tops: tuple[str, ...]
    ) -> None:
        if len(bottoms) != 1 or len(tops) != 1:
            raise self._error(parsed, "has to have one bottom and one top")
        self._pads[tops[0]] = (bottoms[0], parsed.parameters.convolution_param.pad[0])
        self._known.add(tops[0])

    def _padded(self, parsed: ParsedLayer, layer: Layer) -> Layer:
        """Move the width of a padding layer into the layer behind it, as Caffe 1.0 does."""
        if layer.type not in ("Convolution", "Pooling") or len(layer.bottoms) != 1:
            raise self._error(
                parsed, "reads a padding layer, and only conv and pool can; give it a pad itself"
            )
        source, width = self._pads[layer.bottoms[0]]
        if layer.type == "Convolution":
            layer.parameters.convolution_param.pad[:] = [width]
        else:
            layer.parameters.pooling_param.pad = width
        return replace(layer, bottoms=(source,))

    def _add_source(self, parsed: ParsedLayer) -> None:
        """Make an input of the first top; the others are labels."""
        parameters = parsed.parameters
        tops = tuple(parameters.top) or (parameters.name,)
        shapes = _source_shapes(parameters, len(tops))
        self._dropped.update(tops)
        for top, shape in zip(tops, shapes, strict=False):
            self._add_input(top, shape, line=parsed.line)

    def _add_input(self, name: str, shape: Shape, *, line: int) -> None:
        right = all(1 <= size <= _LARGEST_DIM for size in shape)
        if not (right and 1 <= len(shape) <= MOST_AXES):
            raise NetworkError(
                f"{self._path}, line {line}: the input {name!r} has shape {shape[:8]}; expected "
                f"1 to {MOST_AXES} sizes from 1 to {_LARGEST_DIM}"
            )
        self._inputs[name] = shape
        self._dropped.discard(name)
        self._known.add(name)

    def _error(self, parsed: ParsedLayer, problem: str) -> NetworkError:
        parameters = parsed.parameters
        return NetworkError(
            f"{self._path}, line {parsed.line}: layer {parameters.name!r} ({parameters.type}) "
            f"{problem}"
        )


def _declared_inputs(path: Path, net: Any) -> dict[str, Shape]:
    """Read `input` with `input_shape`, or with four numbers of `input_dim` each."""
    shapes = [tuple(shape.dim) for shape in net.input_shape]
    if not shapes:
        dims = list(net.input_dim)
        shapes = [tuple(dims[start : start + 4]) for start in range(0, len(dims), 4)]
    if len(shapes) != len(net.input) or any(not net.input_shape and len(s) != 4 for s in shapes):
        raise NetworkError(
            f"{path}: every input needs one input_shape, or four input_dim; found "
            f"{len(net.input)} inputs, {len(net.input_shape)} input_shape and "
            f"{len(net.input_dim)} input_dim"
        )
    return dict(zip(net.input, shapes, strict=True))


def _source_shapes(layer: Any, tops: int) -> list[Shape]:
    """Tell what shapes an input or data layer gives; fewer than its tops where it cannot tell."""
    if layer.type == "Input":
        shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
        return shapes * tops if len(shapes) == 1 else shapes
    if layer.type == "DummyData":
        return _dummy_shapes(layer.dummy_data_param)
    if layer.type == "MemoryData":
        data = layer.memory_data_param
        side = (data.height, data.width)
        return _picture(layer, data.batch_size, data.channels, side)
    if layer.type == "ImageData":
        images = layer.image_data_param
        side = (images.new_height, images.new_width)
        return _picture(layer, images.batch_size, 3 if images.is_color else 1, side)
    return _picture(layer, layer.data_param.batch_size, 3, (0, 0))


def _dummy_shapes(data: Any) -> list[Shape]:
    if data.shape:
        return [tuple(shape.dim) for shape in data.shape]
    return list(zip(data.num, data.channels, data.height, data.width, strict=False))


def _picture(layer: Any, batch: int, channels: int, side: tuple[int, int]) -> list[Shape]:
    transform = layer.transform_param
    height, width = (transform.crop_size,) * 2 if transform.crop_size else side
    if not (height and width):
        return []
    return [(batch or 1, 1 if transform.force_gray else channels, height, width)]
