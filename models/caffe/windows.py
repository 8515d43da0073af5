"""How a sliding window of ONNX is expressed in Caffe, which pads both sides alike."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A window that slides along one axis, in pixels.

    Attributes:
        side: Length of the axis.
        kernel: Values that the window covers, gaps of dilation included.
        stride: Step from window to window.
        before: Padding at the low end.
        count: How many windows there are.
    """

    side: int
    kernel: int
    stride: int
    before: int
    count: int


@dataclass(frozen=True)
class Cut:
    """What Caffe is told, and which of its windows are wanted.

    Attributes:
        pad: Padding on both ends.
        skip: Windows too many at the low end.
        total: Windows that Caffe makes.
    """

    pad: int
    skip: int
    total: int


def convolution_cut(window: Window) -> Cut:
    """Find the least padding with which Caffe makes every window of a convolution."""
    skip = 0
    while True:
        pad = window.before + skip * window.stride
        total = (window.side + 2 * pad - window.kernel) // window.stride + 1
        if total - skip >= window.count:
            return Cut(pad, skip, total)
        skip += 1


def pooling_cut(window: Window) -> Cut | None:
    """Find Caffe's windows of a pooling layer, or None where they are other ones.

    Caffe rounds the number up, and drops a last window that would lie in the padding alone.
    """
    pad = window.before
    if pad >= window.kernel or (window.count - 1) * window.stride >= window.side + pad:
        return None
    total = math.ceil((window.side + 2 * pad - window.kernel) / window.stride) + 1
    if pad and (total - 1) * window.stride >= window.side + pad:
        total -= 1
    return Cut(pad, 0, total) if total >= window.count else None
