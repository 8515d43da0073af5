"""Writes networks as Caffe reads them: a prototxt in today's format and a caffemodel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from models.caffe.schema import message

Blobs = Mapping[str, Sequence[NDArray[np.float32]]]


@dataclass
class NetWriter:
    """A network under construction.

    Attributes:
        name: What it calls itself.
        blobs: For each layer that has weights its blobs, dtype=float32, in Caffe's order.
    """

    name: str
    blobs: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._net = message("NetParameter")
        self._net.name = self.name

    def layer(
        self,
        name: str,
        kind: str,
        bottoms: Sequence[str] = (),
        tops: Sequence[str] | None = None,
    ) -> Any:
        """Add a layer and return its `LayerParameter`, in which the rest can be set.

        Args:
            name: Its name.
            kind: Caffe's type of layer, such as `InnerProduct`.
            bottoms: The blobs that it reads.
            tops: The blobs that it writes; by default one that is named like the layer.
        """
        tops = [name] if tops is None else tops
        return self._net.layer.add(name=name, type=kind, bottom=bottoms, top=tops)

    def input(self, name: str, shape: Sequence[int]) -> None:
        """Add the input, a blob of a given shape; the first axis is the batch."""
        self.layer(name, "Input").input_param.shape.add(dim=shape)

    def prototxt(self, *comments: str) -> str:
        """Return the description as text, below some lines of comment."""
        return text_of(self._net, *comments)

    def caffemodel(self) -> bytes:
        """Return the weights; the same blobs give the same bytes."""
        return caffemodel(self.blobs, name=self.name)


def text_of(parameters: Any, *comments: str) -> str:
    """Return a message in protobuf's text format, below some lines of comment."""
    head = "".join(f"# {comment}\n" for comment in comments)
    return head + str(text_format.MessageToString(parameters))


def caffemodel(blobs: Blobs, *, name: str = "") -> bytes:
    """Return a file of weights that Caffe 1.0 reads.

    Args:
        blobs: For each layer its blobs, dtype=float32, of any shape.
        name: Of the network.
    """
    net = message("NetParameter")
    net.name = name
    for layer, arrays in blobs.items():
        parameters = net.layer.add(name=layer)
        for array in arrays:
            blob = parameters.blobs.add(data=np.ascontiguousarray(array, "<f4").tobytes())
            blob.shape.dim.extend(array.shape)
    return bytes(net.SerializeToString(deterministic=True))
