"""Pooling, by Caffe's own rules for what hangs over the edge."""

from typing import Any, NamedTuple

import numpy as np

from models.caffe.layers.kind import Kind, Misfit, Step, picture
from models.caffe.network import Shape

_MAX, _AVE = 0, 1
_FLOOR = 1


class _Axis(NamedTuple):
    """Windows along one axis of the picture.

    `ends` is how far behind the picture the last window reaches: its pad, and where the number
    of windows was rounded up, some pixels that are neither picture nor pad.
    """

    kernel: int
    stride: int
    pad: int
    side: int
    windows: int

    @property
    def ends(self) -> int:
        return max(0, (self.windows - 1) * self.stride + self.kernel - self.side - self.pad)

    def counted(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Pixels that each window's average is over: those of picture and pad."""
        starts = np.arange(self.windows) * self.stride - self.pad
        return np.minimum(starts + self.kernel, self.side + self.pad) - starts


def _axes(parameters: Any, shape: Shape) -> tuple[_Axis, _Axis]:
    pool = parameters.pooling_param
    _, _, height, width = picture(shape)
    if pool.global_pooling:
        return _Axis(height, 1, 0, height, 1), _Axis(width, 1, 0, width, 1)
    has = pool.HasField
    if not (has("kernel_size") or (has("kernel_h") and has("kernel_w"))):
        raise Misfit("says no kernel_size; add it, or global_pooling: true")
    kernels = (pool.kernel_size,) * 2 if has("kernel_size") else (pool.kernel_h, pool.kernel_w)
    strides = (pool.stride_h, pool.stride_w) if has("stride_h") else (pool.stride,) * 2
    pads = (pool.pad_h, pool.pad_w) if has("pad_h") or has("pad_w") else (pool.pad,) * 2
    for kernel, stride, pad in zip(kernels, strides, pads, strict=True):
        if not kernel or not stride or pad >= kernel:
            raise Misfit(
                f"has kernel {kernel}, stride {stride} and pad {pad}; kernel and stride have to "
                "be at least 1 and the pad less than the kernel"
            )
    high, wide = (
        _axis(*each, padded=any(pads), floor=pool.round_mode == _FLOOR or not pool.ceil_mode)
        for each in zip(kernels, strides, pads, (height, width), strict=True)
    )
    return high, wide


def _axis(kernel: int, stride: int, pad: int, side: int, *, padded: bool, floor: bool) -> _Axis:
    room = side + 2 * pad - kernel
    if room < 0:
        raise Misfit(f"has kernel {kernel} and gets {side} pixels; its kernel is too large")
    windows = (room if floor else room + stride - 1) // stride + 1
    # With a pad, the last window has to begin inside the picture or the first pad.
    if padded and (windows - 1) * stride >= side + pad:
        windows -= 1
    if (windows - 1) * stride - pad >= side:
        raise Misfit(
            f"has kernel {kernel} and stride {stride} on {side} pixels, so that its last window "
            "lies outside the picture; use a stride of at most the kernel"
        )
    return _Axis(kernel, stride, pad, side, windows)


def _tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    if parameters.pooling_param.pool not in (_MAX, _AVE):
        raise Misfit("pools at random (STOCHASTIC), which is not supported; use MAX or AVE")
    high, wide = _axes(parameters, shapes[0])
    return [(*shapes[0][:2], high.windows, wide.windows)]


def _write(step: Step) -> list[str]:
    pool = step.parameters.pooling_param
    kind = "MaxPool" if pool.pool == _MAX else "AveragePool"
    high, wide = _axes(step.parameters, step.shapes[0])
    if (high.kernel, wide.kernel) == (high.side, wide.side) and not high.pad and not wide.pad:
        return [step.node(f"Global{kind}", step.bottoms[:1])]
    attributes: dict[str, Any] = {
        "kernel_shape": [high.kernel, wide.kernel],
        "strides": [high.stride, wide.stride],
        "pads": [high.pad, wide.pad, high.ends, wide.ends],
    }
    if kind == "AveragePool" and (high.pad or wide.pad):
        return [_write_padded_average(step, high, wide, attributes)]
    return [step.node(kind, step.bottoms[:1], **attributes)]


def _write_padded_average(step: Step, high: _Axis, wide: _Axis, attributes: dict[str, Any]) -> str:
    """Caffe counts the pad, but not what rounding up adds to it; ONNX knows all or nothing."""
    pooled = step.node("AveragePool", step.bottoms[:1], count_include_pad=1, **attributes)
    counted = np.outer(high.counted(), wide.counted())
    whole = high.kernel * wide.kernel
    if (counted == whole).all():
        return pooled
    share = step.constant("share", (whole / counted).astype(np.float32))
    return step.node("Mul", [pooled, share])


POOLING = Kind(_tops, _write)
