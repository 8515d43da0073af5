"""A Caffe network as the rest of lookalike sees it, whichever format its file was in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import NetworkError

Shape = tuple[int, ...]

MOST_AXES = 32
"""Caffe's own limit of a blob."""


@dataclass(frozen=True)
class Layer:
    """One layer, in the terms of Caffe 1.0.

    Attributes:
        name: Its name, by which its weights are found.
        type: Caffe's name of what it does, such as `InnerProduct`.
        bottoms: Names of the blobs that it reads.
        tops: Names of the blobs that it writes; one that is also a bottom is overwritten.
        parameters: The `LayerParameter` message, upgraded where the file is older.
        line: Where it begins in the file, from 1.
        unknown: A group of parameters that it sets and that lookalike does not know, such as
            `permute_param`; empty where there is none.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    parameters: Any
    line: int
    unknown: str = ""


@dataclass(frozen=True)
class Net:
    """A network as it runs in the TEST phase, without layers of data, loss and accuracy.

    Attributes:
        path: The file it was read from.
        name: What it calls itself; may be empty.
        inputs: Shape of each input by its blob's name; the first axis is the batch.
        layers: In the order in which they run.
    """

    path: Path
    name: str
    inputs: dict[str, Shape]
    layers: tuple[Layer, ...]

    def error(self, layer: Layer, problem: str) -> NetworkError:
        """Make the error that says where in the file something is wrong."""
        return NetworkError(
            f"{self.path}, line {layer.line}: layer {layer.name!r} ({layer.type}) {problem}"
        )
