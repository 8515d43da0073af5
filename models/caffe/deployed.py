"""The prototxt of a network as it is deployed: no data layers, no loss."""

from pathlib import Path
from typing import Any

from models.caffe.legacy import upgrade
from models.caffe.network import Net
from models.caffe.prototxt import is_for_training, read_prototxt
from models.caffe.shapes import needed_for
from models.caffe.text import parse
from models.caffe.write import NetWriter
from models.errors import NetworkError


def deployed(prototxt: Path, *, blobs: set[str]) -> bytes:
    """Return a network's description, fit to be run without its training data.

    Args:
        prototxt: A deploy or a train_val prototxt of any format.
        blobs: The blobs that are wanted of it.

    Returns:
        The file as it is, if it can be deployed: whoever compares engines then runs what the
        user gave. What has data layers, or layers that do not name what they make, is written
        anew in today's format, as far as the blobs need it.

    Raises:
        NetworkError: The file cannot be read or is wrong.
    """
    parsed = parse(prototxt)
    layers = upgrade(parsed.layers) if parsed.old else parsed.layers
    if all(_can_be_deployed(one.parameters) for one in layers):
        try:
            return prototxt.read_bytes()
        except OSError as error:
            raise NetworkError(f"cannot read {prototxt}: {error.strerror}") from error
    return _written(needed_for(read_prototxt(prototxt), blobs), prototxt.name)


def _can_be_deployed(layer: Any) -> bool:
    # Early files leave out the name of the last top, on which Caffe 1.0 insists.
    named = layer.top or is_for_training(layer.type)
    return bool(named and (layer.bottom or layer.type == "Input"))


def _written(net: Net, source: str) -> bytes:
    writer = NetWriter(net.name)
    for name, shape in net.inputs.items():
        writer.input(name, shape)
    for layer in net.layers:
        parameters = writer.layer(layer.name, layer.type)
        parameters.CopyFrom(layer.parameters)
        parameters.ClearField("include")
        parameters.ClearField("exclude")
        parameters.bottom[:], parameters.top[:] = layer.bottoms, layer.tops
    return writer.prototxt(f"Written from {source}: what features and code need of it.").encode()
