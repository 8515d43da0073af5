"""What is known of a kind of layer: the shapes it makes, and how ONNX writes it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.caffe.network import Shape

Array = NDArray[np.float32]


class Misfit(ValueError):
    """A layer cannot work on what it is given; the message goes on after the layer's name."""


class Step(Protocol):
    """One layer while it is written as ONNX.

    Attributes:
        parameters: Its `LayerParameter`.
        bottoms: The ONNX names of what it reads.
        shapes: Their shapes, as Caffe sees them; the first axis is the batch.
        tops: The shapes of what it makes.
        blobs: Its weights, float32, with the shapes that its kind asks for.
    """

    parameters: Any
    bottoms: list[str]
    shapes: list[Shape]
    tops: list[Shape]
    blobs: list[Array]

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""

    def constant(self, role: str, value: NDArray[Any]) -> str:
        """Add a constant, and return its name."""


def no_blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    """Say that a layer has no weights."""
    del parameters, shapes
    return []


@dataclass(frozen=True)
class Kind:
    """A kind of layer.

    Attributes:
        tops: Shapes of its tops, from its `LayerParameter`, its bottoms' shapes; may raise
            `Misfit`.
        write: Adds its nodes, and returns the ONNX names of its tops.
        blobs: Shapes of its weights, likewise.
        inputs: The least and the largest number of bottoms.
        outputs: Likewise of tops.
    """

    tops: Callable[[Any, list[Shape]], list[Shape]]
    write: Callable[[Step], list[str]]
    blobs: Callable[[Any, list[Shape]], list[Shape]] = no_blobs
    inputs: tuple[int, int] = (1, 1)
    outputs: tuple[int, int] = (1, 1)


def same_shape(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    """Say that a layer's top is as large as its first bottom."""
    del parameters
    return shapes[:1]


def picture(shape: Shape) -> tuple[int, int, int, int]:
    """Return N, channels, height and width of a blob that has to have them."""
    if len(shape) != 4:
        raise Misfit(f"expects a blob of 4 axes (N, C, H, W), got shape {shape}")
    return shape[0], shape[1], shape[2], shape[3]


def positive_axis(axis: int, shape: Shape, *, end: bool = False) -> int:
    """Count an axis from the front; `end` allows the place behind the last."""
    found = axis + len(shape) + end if axis < 0 else axis
    if not 0 <= found < len(shape) + end:
        raise Misfit(f"has axis {axis}, and its blob has shape {shape}")
    return found


def pair(values: Sequence[int], high: int, wide: int, *, has_pair: bool) -> tuple[int, int]:
    """Read a field that is one number, two numbers, or two fields for height and width."""
    if has_pair:
        return high, wide
    if len(values) > 2:
        raise Misfit(f"gives {len(values)} numbers for height and width; give one or two")
    return values[0], values[-1]


def count(shape: Shape) -> int:
    """Return the number of values of a blob."""
    return math.prod(shape)
