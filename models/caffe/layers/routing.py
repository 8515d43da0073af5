"""Layers that join, cut and reshape blobs."""

from itertools import pairwise
from typing import Any

import numpy as np

from models.caffe.layers.kind import Kind, Misfit, Step, count, positive_axis
from models.caffe.network import Shape

_MANY = 1 << 16
_PROD, _MAX = 0, 2


def _concat_axis(parameters: Any, shape: Shape) -> int:
    concat = parameters.concat_param
    axis = concat.concat_dim if concat.HasField("concat_dim") else concat.axis
    return positive_axis(axis, shape)


def _concat_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    axis = _concat_axis(parameters, shapes[0])
    rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(rests) > 1 or len({len(shape) for shape in shapes}) > 1:
        raise Misfit(f"cannot join blobs of shapes {shapes[:8]} along axis {axis}")
    total = sum(shape[axis] for shape in shapes)
    return [(*shapes[0][:axis], total, *shapes[0][axis + 1 :])]


def _write_concat(step: Step) -> list[str]:
    axis = _concat_axis(step.parameters, step.shapes[0])
    return [step.node("Concat", step.bottoms, axis=axis)]


def _slice_axis(parameters: Any, shape: Shape) -> int:
    cut = parameters.slice_param
    return positive_axis(cut.slice_dim if cut.HasField("slice_dim") else cut.axis, shape)


def _slice_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    shape, axis = shapes[0], _slice_axis(parameters, shapes[0])
    tops, points = len(parameters.top), list(parameters.slice_param.slice_point)
    if not points:
        if not tops or shape[axis] % tops:
            raise Misfit(f"cannot cut axis {axis} of shape {shape} into {tops} equal parts")
        points = [shape[axis] // tops * part for part in range(1, tops)]
    ends = [0, *points, shape[axis]]
    sizes = [end - start for start, end in pairwise(ends)]
    if len(sizes) != tops or min(sizes) < 1:
        raise Misfit(f"cannot cut axis {axis} of shape {shape} at {points[:8]} for {tops} tops")
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def _write_slice(step: Step) -> list[str]:
    axis = _slice_axis(step.parameters, step.shapes[0])
    starts = np.cumsum([0, *(top[axis] for top in step.tops)])
    return [_cut(step, [axis], [int(start)], [int(end)]) for start, end in pairwise(starts)]


def _cut(step: Step, axes: list[int], starts: list[int], ends: list[int]) -> str:
    values = {"starts": starts, "ends": ends, "axes": axes}
    names = [step.constant(role, np.array(value, np.int64)) for role, value in values.items()]
    return step.node("Slice", [step.bottoms[0], *names])


def _split_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    return shapes * max(1, len(parameters.top))


def _write_split(step: Step) -> list[str]:
    return step.bottoms * len(step.tops)


def _eltwise_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    if len(set(shapes)) > 1:
        raise Misfit(f"needs blobs of one shape, got {shapes[:8]}")
    eltwise = parameters.eltwise_param
    if eltwise.coeff and (len(eltwise.coeff) != len(shapes) or eltwise.operation in (_PROD, _MAX)):
        raise Misfit("has coeff, which need a SUM and one for each bottom")
    return shapes[:1]


def _write_eltwise(step: Step) -> list[str]:
    eltwise = step.parameters.eltwise_param
    if eltwise.operation == _MAX:
        return [step.node("Max", step.bottoms)]
    kind = "Mul" if eltwise.operation == _PROD else "Add"
    coefficients = list(eltwise.coeff) or [1.0] * len(step.bottoms)
    last = _times(step, step.bottoms[0], coefficients[0], role="coeff0")
    for index, name in enumerate(step.bottoms[1:], start=1):
        if coefficients[index] == -1:
            last = step.node("Sub", [last, name])
            continue
        other = _times(step, name, coefficients[index], role=f"coeff{index}")
        last = step.node(kind, [last, other])
    return [last]


def _times(step: Step, name: str, factor: float, *, role: str) -> str:
    if factor == 1:
        return name
    return step.node("Mul", [name, step.constant(role, np.array(factor, np.float32))])


def _flatten_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    flatten, shape = parameters.flatten_param, shapes[0]
    first = positive_axis(flatten.axis, shape)
    last = positive_axis(flatten.end_axis, shape)
    if last < first:
        raise Misfit(f"has end_axis {flatten.end_axis} before axis {flatten.axis}")
    return [(*shape[:first], count(shape[first : last + 1]), *shape[last + 1 :])]


def _write_shape(step: Step) -> list[str]:
    """Write any change of shape that keeps the batch, whose size is left to the caller."""
    if step.tops[0] == step.shapes[0]:
        return step.bottoms[:1]
    if len(step.tops[0]) == 2:
        return [step.node("Flatten", step.bottoms[:1])]
    shape = step.constant("shape", np.array([0, *step.tops[0][1:]], np.int64))
    return [step.node("Reshape", [step.bottoms[0], shape])]


def _reshape_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    reshape, shape = parameters.reshape_param, shapes[0]
    start = positive_axis(reshape.axis, shape, end=True)
    end = len(shape) if reshape.num_axes == -1 else start + reshape.num_axes
    if not start <= end <= len(shape):
        raise Misfit(f"has num_axes {reshape.num_axes} from axis {start}, on shape {shape}")
    asked = list(reshape.shape.dim)
    for index, size in enumerate(asked):
        if size == 0:
            if start + index >= len(shape):
                raise Misfit(f"copies axis {start + index}, which shape {shape} has not")
            asked[index] = shape[start + index]
    total = count(shape[start:end])
    if asked.count(-1) == 1:
        others = -count(tuple(asked))
        if others <= 0 or total % others:
            raise Misfit(f"cannot make {asked[:8]} of {total} values")
        asked[asked.index(-1)] = total // others
    if count(tuple(asked)) != total or min(asked, default=1) < 1:
        raise Misfit(f"cannot make {asked[:8]} of {total} values")
    return [(*shape[:start], *asked, *shape[end:])]


def _crop(parameters: Any, shapes: list[Shape]) -> tuple[list[int], list[int], list[int]]:
    """Return the axes that are cut, and where each begins and ends."""
    crop, (shape, like) = parameters.crop_param, shapes
    first = positive_axis(crop.axis, shape)
    axes = list(range(first, len(shape)))
    offsets = list(crop.offset) or [0]
    if len(offsets) == 1:
        offsets *= len(axes)
    if len(offsets) != len(axes) or len(like) != len(shape):
        raise Misfit(f"has offset {offsets[:8]} for {len(axes)} axes of shapes {shape}, {like}")
    ends = [offset + like[axis] for axis, offset in zip(axes, offsets, strict=True)]
    if any(end > shape[axis] for axis, end in zip(axes, ends, strict=True)):
        raise Misfit(f"cannot cut {like} out of {shape} at {offsets[:8]}")
    return axes, offsets, ends


def _crop_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    axes, starts, ends = _crop(parameters, shapes)
    return [(*shapes[0][: axes[0]], *(e - s for s, e in zip(starts, ends, strict=True)))]


def _write_crop(step: Step) -> list[str]:
    return [_cut(step, *_crop(step.parameters, step.shapes))]


CONCAT = Kind(_concat_tops, _write_concat, inputs=(1, _MANY))
SLICE = Kind(_slice_tops, _write_slice, outputs=(1, _MANY))
SPLIT = Kind(_split_tops, _write_split, outputs=(1, _MANY))
ELTWISE = Kind(_eltwise_tops, _write_eltwise, inputs=(2, _MANY))
FLATTEN = Kind(_flatten_tops, _write_shape)
RESHAPE = Kind(_reshape_tops, _write_shape)
CROP = Kind(_crop_tops, _write_crop, inputs=(2, 2))
