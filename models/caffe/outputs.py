"""Finds the blobs that a user means by the names of features and code."""

import difflib
from dataclasses import dataclass

from models.caffe.network import Layer, Net
from models.errors import OptionError

# Layers behind the sigmoid that leave its values as they are.
_PASS_ON = {"Dropout", "Flatten", "Reshape", "Split"}


@dataclass(frozen=True)
class Outputs:
    """Names of blobs; what they hold when the network has run is meant.

    Attributes:
        feature: The blob of features.
        latent: The blob of latent values, or None.
        bare: Whether `latent` has no sigmoid, and is to get one.
    """

    feature: str
    latent: str | None
    bare: bool = False


def find_outputs(
    net: Net, *, feature: str, latent: str | None, add_sigmoid: bool = False
) -> Outputs:
    """Find features and code in a network.

    Args:
        net: The network.
        feature: A blob, or a layer, whose first top is then meant.
        latent: Likewise; a layer or blob before the sigmoid stands for the sigmoid behind it.
        add_sigmoid: Whether a code layer without sigmoid is to get one.

    Raises:
        OptionError: There is no such name.
        NetworkError: The code layer has no sigmoid.
    """
    blob = _blob(net, feature)
    if latent is None:
        return Outputs(blob, None)
    code = _blob(net, latent)
    for name in (code, *(sigmoid.tops[0] for sigmoid in _readers(net, code, "Sigmoid"))):
        if _is_sigmoid(net, name):
            return Outputs(blob, name)
    if add_sigmoid:
        return Outputs(blob, code, bare=True)
    writer = _writers(net, code)[-1]
    raise net.error(
        writer,
        f"is to give the code, and no sigmoid follows it; name the layer that has one, or add "
        f'layer {{ name: "{code}_sigmoid" type: "Sigmoid" bottom: "{code}" '
        f'top: "{code}_sigmoid" }}',
    )


def _blob(net: Net, name: str) -> str:
    if any(name in layer.tops for layer in net.layers):
        return name
    for layer in net.layers:
        if layer.name == name:
            return layer.tops[0]
    names = list(dict.fromkeys(top for layer in net.layers for top in layer.tops))
    near = difflib.get_close_matches(name, names, n=3) or names[-3:]
    raise OptionError(
        f"{net.path} has no layer or blob {name!r}; did you mean {' or '.join(map(repr, near))}?"
    )


def _writers(net: Net, blob: str) -> list[Layer]:
    return [layer for layer in net.layers if blob in layer.tops]


def _readers(net: Net, blob: str, kind: str) -> list[Layer]:
    return [layer for layer in net.layers if blob in layer.bottoms and layer.type == kind]


def _is_sigmoid(net: Net, blob: str) -> bool:
    for layer in reversed(net.layers):
        if blob not in layer.tops:
            continue
        if layer.type not in _PASS_ON:
            return layer.type == "Sigmoid"
        blob = layer.bottoms[0]
    return False
