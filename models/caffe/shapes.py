"""Follows the shapes of blobs through a network, and says what weights each layer asks for."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.caffe.layers import KINDS
from models.caffe.layers.kind import Kind, Misfit, count
from models.caffe.network import MOST_AXES, Layer, Net, Shape
from models.errors import NetworkError, WeightsError

# 1 GB of float32; the largest layer of VGG has a tenth of that as weights.
_MOST_VALUES = 1 << 28


@dataclass(frozen=True)
class SizedLayer:
    """A layer with the shapes of all that goes in and out.

    Attributes:
        layer: The layer.
        kind: How it is converted.
        bottoms: Shapes of the blobs that it reads; the first axis is the batch.
        tops: Shapes of the blobs that it makes.
        blobs: Shapes of its weights, in Caffe's order.
    """

    layer: Layer
    kind: Kind
    bottoms: list[Shape]
    tops: list[Shape]
    blobs: list[Shape]


def infer(net: Net) -> list[SizedLayer]:
    """Work out every shape in a network.

    Args:
        net: As `read_prototxt` or `needed_for` returns it.

    Returns:
        One entry for each layer, in order.

    Raises:
        NetworkError: A layer is of a kind that is not supported, does not fit what goes in,
            would mix the images of a batch, or is absurdly large; with its line.
    """
    shapes = dict(net.inputs)
    found = []
    for layer in net.layers:
        sized = _size(net, layer, [shapes[name] for name in layer.bottoms])
        shapes.update(zip(layer.tops, sized.tops, strict=True))
        found.append(sized)
    return found


def _size(net: Net, layer: Layer, bottoms: list[Shape]) -> SizedLayer:
    kind = KINDS.get(layer.type)
    if kind is None:
        raise net.error(
            layer, f"is not supported; lookalike knows {', '.join(sorted(KINDS))} and Input"
        )
    if layer.unknown:
        raise net.error(
            layer,
            f"sets {layer.unknown}, which lookalike does not know; drop it if it changes nothing",
        )
    for what, names, (least, most) in (
        ("bottoms", layer.bottoms, kind.inputs),
        ("tops", layer.tops, kind.outputs),
    ):
        if not least <= len(names) <= most:
            expected = least if least == most else f"{least} or more"
            raise net.error(layer, f"has {len(names)} {what}; expected {expected}")
    try:
        tops = kind.tops(layer.parameters, bottoms)
        blobs = kind.blobs(layer.parameters, bottoms)
    except Misfit as problem:
        raise net.error(layer, str(problem)) from problem
    for shape in (*tops, *blobs):
        if count(shape) > _MOST_VALUES or len(shape) > MOST_AXES:
            raise net.error(
                layer,
                f"would need {len(shape)} axes and {count(shape)} values, more than {MOST_AXES} "
                f"or {_MOST_VALUES}",
            )
    if any(top[:1] != bottoms[0][:1] for top in tops):
        raise net.error(
            layer, f"mixes the images of a batch: {bottoms[0]} becomes {tops[0]}; keep axis 0"
        )
    return SizedLayer(layer, kind, bottoms, tops, blobs)


def needed_for(net: Net, blobs: set[str]) -> Net:
    """Return a network without the layers that do not lead to any of some blobs."""
    wanted, kept = set(blobs), []
    for layer in reversed(net.layers):
        if wanted.intersection(layer.tops):
            wanted.update(layer.bottoms)
            kept.append(layer)
    inputs = {name: shape for name, shape in net.inputs.items() if name in wanted}
    return Net(net.path, net.name, inputs, tuple(reversed(kept)))


def fit(
    sized: SizedLayer, weights: Mapping[str, list[NDArray[np.float32]]], *, source: str
) -> list[NDArray[np.float32]]:
    """Take a layer's weights, with the shapes that it asks for.

    Args:
        sized: The layer.
        weights: What `read_caffemodel` returned.
        source: The file's name, for messages.

    Raises:
        WeightsError: They are missing, or of other shapes; axes of length 1 in front do not
            count, because older files write four axes for everything.
    """
    name, expected = sized.layer.name, sized.blobs
    if not expected:
        return []
    remedy = "use the weights that belong to this prototxt, and the whole file"
    if name not in weights:
        raise WeightsError(
            f"{source} has no weights for layer {name!r} ({sized.layer.type}, line "
            f"{sized.layer.line} of the prototxt), which needs {_list(expected)}; {remedy}"
        )
    found = weights[name]
    shapes = [blob.shape for blob in found]
    if [_core(shape) for shape in shapes] != [_core(shape) for shape in expected]:
        raise WeightsError(
            f"{source}: layer {name!r} ({sized.layer.type}, line {sized.layer.line} of the "
            f"prototxt) needs blobs of shape {_list(expected)}, found {_list(shapes)}; {remedy}"
        )
    return [blob.reshape(shape) for blob, shape in zip(found, expected, strict=True)]


def _core(shape: Shape) -> Shape:
    """Drop the axes of length 1 in front."""
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _list(shapes: list[Shape]) -> str:
    return ", ".join(str(shape) for shape in shapes[:8])


def pictures(net: Net) -> tuple[str, Shape]:
    """Return name and shape (N, 3, H, W) of a network's only input.

    Raises:
        NetworkError: It has several, or one that takes no pictures in colour.
    """
    if len(net.inputs) != 1:
        raise NetworkError(
            f"{net.path} has {len(net.inputs)} inputs ({', '.join(net.inputs)}); expected one, "
            "for pictures"
        )
    name, shape = next(iter(net.inputs.items()))
    if len(shape) != 4 or shape[1] != 3:
        raise NetworkError(
            f"{net.path}: the input {name!r} has shape {shape}; expected (N, 3, H, W), for "
            "pictures in colour"
        )
    return name, shape
