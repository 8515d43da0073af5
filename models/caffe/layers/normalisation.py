"""Layers that bring values to a common scale, and those that scale and shift them."""

from typing import Any

import numpy as np

from models.caffe.layers.kind import (
    Array,
    Kind,
    Misfit,
    Step,
    picture,
    positive_axis,
)
from models.caffe.network import Shape

_WITHIN_CHANNEL = 1


def _lrn_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    picture(shapes[0])
    if not parameters.lrn_param.local_size % 2:
        raise Misfit(f"has local_size {parameters.lrn_param.local_size}; it has to be odd")
    return shapes[:1]


def _write_lrn(step: Step) -> list[str]:
    lrn = step.parameters.lrn_param
    if lrn.norm_region == _WITHIN_CHANNEL:
        return [_write_lrn_within(step)]
    attributes = {"alpha": lrn.alpha, "beta": lrn.beta, "bias": lrn.k, "size": lrn.local_size}
    return [step.node("LRN", step.bottoms, **attributes)]


def _write_lrn_within(step: Step) -> str:
    """Divide by the mean square around each pixel; Caffe takes 1 here whatever `k` says."""
    lrn, source = step.parameters.lrn_param, step.bottoms[0]
    square = step.node("Mul", [source, source])
    pooling = {
        "kernel_shape": [lrn.local_size] * 2,
        "pads": [(lrn.local_size - 1) // 2] * 4,
        "count_include_pad": 1,
    }
    mean = step.node("AveragePool", [square], **pooling)
    scaled = step.node("Mul", [mean, step.constant("alpha", np.array(lrn.alpha, np.float32))])
    shifted = step.node("Add", [scaled, step.constant("one", np.array(1, np.float32))])
    power = step.constant("power", np.array(-lrn.beta, np.float32))
    return step.node("Mul", [source, step.node("Pow", [shifted, power])])


def _batch_norm_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    norm = parameters.batch_norm_param
    if norm.HasField("use_global_stats") and not norm.use_global_stats:
        raise Misfit(
            "normalises by the batch (use_global_stats: false), so that an image's features "
            "would depend on its company; set it to true"
        )
    if len(shapes[0]) < 2:
        raise Misfit(f"expects a blob of 2 axes or more, got shape {shapes[0]}")
    return shapes[:1]


def _batch_norm_blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    del parameters
    return [shapes[0][1:2], shapes[0][1:2], (1,)]


def _write_batch_norm(step: Step) -> list[str]:
    """Caffe keeps sums of means and variances, and in a third blob by what to divide them."""
    weight = float(step.blobs[2].item())
    factor = 1 / weight if weight else 0.0
    mean, variance = (step.blobs[i].astype(np.float64) * factor for i in (0, 1))
    if (variance < 0).any():
        raise Misfit("has a variance below 0; its weights are damaged, get them again")
    one, zero = np.ones(len(mean), np.float32), np.zeros(len(mean), np.float32)
    constants = [
        step.constant("gamma", one),
        step.constant("beta", zero),
        step.constant("mean", mean.astype(np.float32)),
        step.constant("variance", variance.astype(np.float32)),
    ]
    epsilon = step.parameters.batch_norm_param.eps
    return [step.node("BatchNormalization", [*step.bottoms, *constants], epsilon=epsilon)]


def _scaled_axes(field: Any, shape: Shape) -> tuple[int, int]:
    """Return the first axis that a Scale or Bias has values for, and the one behind the last."""
    axis = positive_axis(field.axis, shape)
    end = len(shape) if field.num_axes == -1 else axis + field.num_axes
    if not axis <= end <= len(shape):
        raise Misfit(f"has num_axes {field.num_axes} from axis {axis}, on shape {shape}")
    if not axis and end:
        raise Misfit("has a value for each image of the batch (axis 0); use axis 1")
    return axis, end


def _against(shape: Shape, value: Shape, field: Any) -> Shape:
    """Check the second bottom of a Scale or Bias, and give it axes that ONNX can broadcast."""
    axis = 0 if field.axis == 0 else positive_axis(field.axis, shape)
    if shape[axis : axis + len(value)] != value:
        raise Misfit(f"cannot put a blob of shape {value} on axis {axis} of shape {shape}")
    return (1,) * axis + value + (1,) * (len(shape) - axis - len(value))


def _scale_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    if len(shapes) == 2:
        _against(shapes[0], shapes[1], parameters.scale_param)
    else:
        _scaled_axes(parameters.scale_param, shapes[0])
    return shapes[:1]


def _scale_blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    scale = parameters.scale_param
    if len(shapes) == 2:
        return [shapes[1]] if scale.bias_term else []
    axis, end = _scaled_axes(scale, shapes[0])
    return [shapes[0][axis:end]] * (2 if scale.bias_term else 1)


def _write_scale(step: Step) -> list[str]:
    scale, blobs = step.parameters.scale_param, list(step.blobs)
    if len(step.bottoms) == 2:
        factor = _second_bottom(step, scale)
    else:
        factor = step.constant("scale", _spread(step, scale, blobs.pop(0)))
    last = step.node("Mul", [step.bottoms[0], factor])
    if blobs:
        last = step.node("Add", [last, step.constant("bias", _spread(step, scale, blobs[0]))])
    return [last]


def _second_bottom(step: Step, field: Any) -> str:
    shape = _against(step.shapes[0], step.shapes[1], field)
    if shape == step.shapes[1]:
        return step.bottoms[1]
    # The batch is whatever it is: 0 keeps it.
    first = 0 if field.axis == 0 else 1
    target = step.constant("shape", np.array([first, *shape[1:]], np.int64))
    return step.node("Reshape", [step.bottoms[1], target])


def _spread(step: Step, field: Any, value: Array) -> Array:
    """Add axes of length 1 behind a value, so that it falls on the right axes."""
    axis = positive_axis(field.axis, step.shapes[0])
    return value.reshape(value.shape + (1,) * (len(step.shapes[0]) - axis - value.ndim))


def _bias_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    if len(shapes) == 2:
        _against(shapes[0], shapes[1], parameters.bias_param)
    else:
        _scaled_axes(parameters.bias_param, shapes[0])
    return shapes[:1]


def _bias_blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    if len(shapes) == 2:
        return []
    axis, end = _scaled_axes(parameters.bias_param, shapes[0])
    return [shapes[0][axis:end]]


def _write_bias(step: Step) -> list[str]:
    bias = step.parameters.bias_param
    if len(step.bottoms) == 2:
        value = _second_bottom(step, bias)
    else:
        value = step.constant("bias", _spread(step, bias, step.blobs[0]))
    return [step.node("Add", [step.bottoms[0], value])]


def _softmax_tops(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    if not positive_axis(parameters.softmax_param.axis, shapes[0]):
        raise Misfit("compares the images of a batch (axis 0); use axis 1")
    return shapes[:1]


def _write_softmax(step: Step) -> list[str]:
    axis = positive_axis(step.parameters.softmax_param.axis, step.shapes[0])
    return [step.node("Softmax", step.bottoms, axis=axis)]


LRN = Kind(_lrn_tops, _write_lrn)
BATCH_NORM = Kind(_batch_norm_tops, _write_batch_norm, _batch_norm_blobs)
SCALE = Kind(_scale_tops, _write_scale, _scale_blobs, inputs=(1, 2))
BIAS = Kind(_bias_tops, _write_bias, _bias_blobs, inputs=(1, 2))
SOFTMAX = Kind(_softmax_tops, _write_softmax)
