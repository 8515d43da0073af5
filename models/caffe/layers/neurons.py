"""Layers that compute each value by itself."""

import math
from typing import Any

import numpy as np

from models.caffe.layers.kind import Array, Kind, Misfit, Step, same_shape
from models.caffe.network import Shape


def _simple(kind: str) -> Kind:
    """Make a kind that ONNX has under a name of its own."""
    return Kind(same_shape, lambda step: [step.node(kind, step.bottoms)])


def _write_relu(step: Step) -> list[str]:
    slope = step.parameters.relu_param.negative_slope
    if slope:
        return [step.node("LeakyRelu", step.bottoms, alpha=slope)]
    return [step.node("Relu", step.bottoms)]


def _write_relu6(step: Step) -> list[str]:
    relu6 = step.parameters.relu6_param
    if relu6.negative_slope:
        raise Misfit("has a negative_slope, which is not supported")
    bounds = (("low", 0.0), ("high", relu6.threshold))
    names = [step.constant(role, _number(value)) for role, value in bounds]
    return [step.node("Clip", [*step.bottoms, *names])]


def _prelu_blobs(parameters: Any, shapes: list[Shape]) -> list[Shape]:
    if len(shapes[0]) < 2:
        raise Misfit(f"expects a blob of 2 axes or more, got shape {shapes[0]}")
    return [() if parameters.prelu_param.channel_shared else shapes[0][1:2]]


def _write_prelu(step: Step) -> list[str]:
    slope = step.blobs[0]
    slope = slope.reshape(-1, *(1,) * (len(step.shapes[0]) - 2))
    return [step.node("PRelu", [*step.bottoms, step.constant("slope", slope)])]


def _write_elu(step: Step) -> list[str]:
    return [step.node("Elu", step.bottoms, alpha=step.parameters.elu_param.alpha)]


def _number(value: float) -> Array:
    return np.array(value, np.float32)


def _line(step: Step, scale: float, shift: float) -> str:
    """Write `scale * x + shift`."""
    last = step.bottoms[0]
    if scale != 1:
        last = step.node("Mul", [last, step.constant("scale", _number(scale))])
    if shift != 0:
        last = step.node("Add", [last, step.constant("shift", _number(shift))])
    return last


def _write_power(step: Step) -> list[str]:
    power = step.parameters.power_param
    last = _line(step, power.scale, power.shift)
    if power.power == 2:
        return [step.node("Mul", [last, last])]
    if power.power != 1:
        last = step.node("Pow", [last, step.constant("power", _number(power.power))])
    return [last]


def _ln(base: float) -> float:
    """Take the logarithm of a base; -1 stands for e."""
    if base == -1:
        return 1.0
    if base <= 0 or base == 1:
        raise Misfit(f"has base {base}; give one above 0 that is not 1, or leave it out for e")
    return math.log(base)


def _write_exp(step: Step) -> list[str]:
    exp = step.parameters.exp_param
    factor = _ln(exp.base)
    return [step.node("Exp", [_line(step, factor * exp.scale, factor * exp.shift)])]


def _write_log(step: Step) -> list[str]:
    log = step.parameters.log_param
    found = step.node("Log", [_line(step, log.scale, log.shift)])
    if log.base == -1:
        return [found]
    return [step.node("Mul", [found, step.constant("per_base", _number(1 / _ln(log.base)))])]


def _write_nothing(step: Step) -> list[str]:
    return list(step.bottoms)


ABS_VAL = _simple("Abs")
BNLL = _simple("Softplus")
SIGMOID = _simple("Sigmoid")
TAN_H = _simple("Tanh")
RELU = Kind(same_shape, _write_relu)
RELU6 = Kind(same_shape, _write_relu6)
PRELU = Kind(same_shape, _write_prelu, _prelu_blobs)
ELU = Kind(same_shape, _write_elu)
POWER = Kind(same_shape, _write_power)
EXP = Kind(same_shape, _write_exp)
LOG = Kind(same_shape, _write_log)
DROPOUT = Kind(same_shape, _write_nothing)
