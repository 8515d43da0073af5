"""Converted layers against Caffe's definitions, written here as plainly as possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.models.caffe_files import (
    converted,
    layer,
    network,
    picture,
    random_blobs,
    run,
    write_files,
)

Array = NDArray[Any]
relaxed = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)


def computed(folder: Path, text: str, x: Array, *, feature: str = "y") -> tuple[Array, Any]:
    """Return what a network makes of pictures with random weights, and the weights."""
    whole = text + layer("InnerProduct", "inner_product_param { num_output: 1 }", name="unused")
    prototxt, weights = write_files(folder, whole)
    model = converted(folder, whole, random_blobs(prototxt), feature=feature)
    assert weights.exists()
    return run(model, x)[0], random_blobs(prototxt)


def windows(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> Iterator[tuple[int, int, slice, slice, int]]:
    """Walk over Caffe's pooling windows: output place, what of the picture, pixels counted."""
    sides = x.shape[2:]
    counts = [
        math.ceil((side + 2 * p - k) / s) + 1
        for side, k, s, p in zip(sides, kernel, stride, pad, strict=True)
    ]
    if any(pad):
        counts = [
            n - 1 if (n - 1) * s >= side + p else n
            for n, side, s, p in zip(counts, sides, stride, pad, strict=True)
        ]
    for i, j in itertools.product(*map(range, counts)):
        ranges, area = [], 1
        for index, side, k, s, p in zip((i, j), sides, kernel, stride, pad, strict=True):
            start = index * s - p
            end = min(start + k, side + p)
            area *= end - start
            ranges.append(slice(max(start, 0), min(end, side)))
        yield i, j, ranges[0], ranges[1], area


def pooled(x: Array, *, average: bool, **window: tuple[int, int]) -> Array:
    found = {}
    for i, j, rows, columns, area in windows(x, **window):
        part = x[:, :, rows, columns]
        found[i, j] = part.sum((2, 3)) / area if average else part.max((2, 3))
    high, wide = (max(place) + 1 for place in zip(*found, strict=True))
    return np.stack([found[i, j] for i in range(high) for j in range(wide)], 2).reshape(
        *x.shape[:2], high, wide
    )


_PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@relaxed
@given(_PAIRS, _PAIRS, st.tuples(st.integers(0, 3), st.integers(0, 3)), st.booleans())
def test_pooling_follows_caffe_s_rules_at_the_edges(
    tmp_path: Path,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    average: bool,
) -> None:
    assume(all(p < k and s <= k for p, k, s in zip(pad, kernel, stride, strict=True)))
    parameters = (
        f"pooling_param {{ pool: {'AVE' if average else 'MAX'} "
        f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} "
        f"stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} }}"
    )
    x = picture()
    found, _ = computed(tmp_path, network(layer("Pooling", parameters)), x)
    expected = pooled(x, average=average, kernel=kernel, stride=stride, pad=pad)
    np.testing.assert_allclose(found, expected.reshape(2, -1), atol=1e-5)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_global_pooling_covers_the_picture(tmp_path: Path, pool: str) -> None:
    x = picture()
    text = layer("Pooling", f"pooling_param {{ pool: {pool} global_pooling: true }}")
    found, _ = computed(tmp_path, network(text), x)
    expected = x.max((2, 3)) if pool == "MAX" else x.mean((2, 3))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def convolved(x: Array, weight: Array, bias: Array, **window: Any) -> Array:
    """Convolve by the definition, group by group."""
    (sh, sw), (ph, pw), dilation = window["stride"], window["pad"], window["dilation"]
    group, (kh, kw) = window["group"], weight.shape[2:]
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    high = (x.shape[2] - dilation * (kh - 1) - 1) // sh + 1
    wide = (x.shape[3] - dilation * (kw - 1) - 1) // sw + 1
    parts = []
    for inputs, kernels in zip(np.split(x, group, 1), np.split(weight, group), strict=True):
        out = np.zeros((len(x), len(kernels), high, wide))
        for i, j in itertools.product(range(kh), range(kw)):
            rows = slice(i * dilation, i * dilation + (high - 1) * sh + 1, sh)
            columns = slice(j * dilation, j * dilation + (wide - 1) * sw + 1, sw)
            out += np.einsum("nchw,oc->nohw", inputs[:, :, rows, columns], kernels[:, :, i, j])
        parts.append(out)
    return np.concatenate(parts, 1) + bias[:, None, None]


@relaxed
@given(
    st.sampled_from([1, 3]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.integers(1, 2),
)
def test_convolution_follows_its_definition(
    tmp_path: Path,
    group: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: int,
) -> None:
    parameters = (
        f"convolution_param {{ num_output: 6 group: {group} dilation: {dilation} "
        f"kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} "
        f"stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} }}"
    )
    x = picture()
    found, blobs = computed(tmp_path, network(layer("Convolution", parameters)), x)
    window: dict[str, Any] = {"stride": stride, "pad": pad, "dilation": dilation, "group": group}
    expected = convolved(x, *blobs["y"], **window)
    np.testing.assert_allclose(found, expected.reshape(2, -1), atol=1e-4)


@pytest.mark.parametrize("kind", ["DepthwiseConvolution", "ConvolutionDepthwise"])
def test_a_depthwise_convolution_has_a_group_for_each_channel(tmp_path: Path, kind: str) -> None:
    parameters = "convolution_param { num_output: 3 kernel_size: 3 pad: 1 }"
    x = picture()
    found, blobs = computed(tmp_path, network(layer(kind, parameters)), x)
    assert blobs["y"][0].shape == (3, 1, 3, 3)
    window: dict[str, Any] = {"stride": (1, 1), "pad": (1, 1), "dilation": 1, "group": 3}
    np.testing.assert_allclose(
        found, convolved(x, *blobs["y"], **window).reshape(2, -1), atol=1e-5
    )


def test_deconvolution_spreads_each_pixel(tmp_path: Path) -> None:
    x = picture((1, 3, 4, 4))
    text = "convolution_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 }"
    found, blobs = computed(tmp_path, network(layer("Deconvolution", text), shape=x.shape), x)
    weight, bias = blobs["y"]
    out = np.zeros((1, 2, 9, 9))
    for i, j in itertools.product(range(4), range(4)):
        out[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += np.einsum(
            "c,cohw->ohw", x[0, :, i, j], weight
        )
    expected = out[:, :, 1:-1, 1:-1] + bias[:, None, None]
    np.testing.assert_allclose(found, expected.reshape(1, -1), atol=1e-5)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_inner_product_multiplies_all_of_an_image(
    tmp_path: Path, transpose: bool, large: bool
) -> None:
    shape = (2, 3, 64, 64) if large else (2, 3, 7, 6)
    outputs, x = 100 if large else 5, picture(shape)
    parameters = (
        f"inner_product_param {{ num_output: {outputs} transpose: {str(transpose).lower()} }}"
    )
    text = network(layer("InnerProduct", parameters), shape=shape)
    found, blobs = computed(tmp_path, text, x)
    weight, bias = blobs["y"]
    expected = x.reshape(2, -1) @ (weight if transpose else weight.T) + bias
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_inner_product_may_keep_more_axes(tmp_path: Path) -> None:
    x = picture()
    text = layer("InnerProduct", "inner_product_param { num_output: 5 axis: -1 }")
    found, blobs = computed(tmp_path, network(text), x)
    expected = x @ blobs["y"][0].T + blobs["y"][1]
    np.testing.assert_allclose(found, expected.reshape(2, -1), atol=1e-5)


def test_lrn_across_channels_divides_by_the_neighbours(tmp_path: Path) -> None:
    picked = picture()
    x = 3 * np.concatenate([np.tanh(picked), np.abs(picked), picked], 1)
    text = network(
        layer("TanH", name="t"),
        layer("AbsVal", name="a"),
        layer("Concat", name="c", bottoms="t a x"),
        layer("Power", "power_param { scale: 3 }", name="p", bottoms="c"),
        layer("LRN", "lrn_param { local_size: 5 alpha: 0.5 beta: 0.6 k: 2 }", bottoms="p"),
    )
    found, _ = computed(tmp_path, text, picked)
    expected = np.empty_like(x)
    for c in range(9):
        near = (x[:, max(0, c - 2) : c + 3].astype(np.float64) ** 2).sum(1)
        expected[:, c] = x[:, c] / (2 + 0.5 / 5 * near) ** 0.6
    np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=1e-5)


def test_lrn_within_a_channel_divides_by_the_pixels_around(tmp_path: Path) -> None:
    x = 3 * picture()
    parameters = "lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL k: 7 }"
    found, _ = computed(tmp_path, network(layer("LRN", parameters)), x)
    mean = pooled(x**2, average=True, kernel=(3, 3), stride=(1, 1), pad=(1, 1))
    # Caffe takes 1 whatever k says.
    expected = x / (1 + 0.5 * mean) ** 0.75
    np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 1.0, 999.98])
def test_batch_norm_divides_its_sums_by_their_weight(tmp_path: Path, factor: float) -> None:
    x, rng = picture(), np.random.default_rng(1)
    mean, variance = rng.normal(size=3), rng.uniform(0.1, 2, 3)
    sums = [np.float32(factor) * mean, np.float32(factor) * variance, np.array([factor])]
    blobs = {"y": [value.astype(np.float32) for value in sums]}
    text = network(layer("BatchNorm", "batch_norm_param { eps: 0.01 }"))
    found = run(converted(tmp_path, text, blobs, feature="y"), x)[0]
    if not factor:
        mean, variance = np.zeros(3), np.zeros(3)
    expected = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 0.01)
    np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "spread"),
    [
        ("", (3, 1, 1)),
        ("axis: 1 num_axes: 2", (3, 7, 1)),
        ("axis: 1 num_axes: -1", (3, 7, 6)),
        ("axis: -1", (6,)),
        ("num_axes: 0", ()),
    ],
)
def test_scale_and_bias_work_on_the_axes_they_name(
    tmp_path: Path, parameters: str, spread: tuple[int, ...]
) -> None:
    x = picture()
    text = network(
        layer("Scale", f"scale_param {{ bias_term: true {parameters} }}", name="s"),
        layer("Bias", f"bias_param {{ {parameters} }}", bottoms="s"),
    )
    found, blobs = computed(tmp_path, text, x)
    (scale, shift), (bias,) = blobs["s"], blobs["y"]
    expected = x * scale.reshape(spread) + shift.reshape(spread) + bias.reshape(spread)
    np.testing.assert_allclose(found, expected.reshape(2, -1), atol=1e-5)


def test_a_scale_may_come_from_the_network(tmp_path: Path) -> None:
    x = picture()
    text = network(
        layer("Pooling", "pooling_param { pool: AVE global_pooling: true }", name="p"),
        layer("Flatten", name="f", bottoms="p"),
        layer("Scale", "scale_param { axis: 0 }", name="s", bottoms="x f"),
        layer("Bias", "bias_param { axis: 0 }", bottoms="s f"),
    )
    mean = x.mean((2, 3), keepdims=True)
    found, _ = computed(tmp_path, text, x)
    np.testing.assert_allclose(found, (x * mean + mean).reshape(2, -1), atol=1e-5)


NEURONS: dict[str, Any] = {
    "AbsVal": ("", np.abs),
    "BNLL": ("", lambda x: np.log1p(np.exp(x))),
    "Dropout": ("dropout_param { dropout_ratio: 0.9 }", lambda x: x),
    "ELU": ("elu_param { alpha: 0.3 }", lambda x: np.where(x > 0, x, 0.3 * np.expm1(x))),
    "Exp": ("exp_param { base: 2 scale: 0.5 shift: 1 }", lambda x: 2 ** (0.5 * x + 1)),
    "Log": ("log_param { base: 10 scale: 0.1 shift: 5 }", lambda x: np.log10(0.1 * x + 5)),
    "Power": ("power_param { power: 3 scale: -2 shift: 1 }", lambda x: (1 - 2 * x) ** 3),
    "ReLU": ("relu_param { negative_slope: 0.1 }", lambda x: np.where(x > 0, x, 0.1 * x)),
    "ReLU6": ("", lambda x: np.clip(x, 0, 6)),
    "Sigmoid": ("", lambda x: 1 / (1 + np.exp(-x))),
    "TanH": ("", np.tanh),
}


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("in_place", [False, True])
def test_neurons_compute_each_value(tmp_path: Path, kind: str, in_place: bool) -> None:
    parameters, expected = NEURONS[kind]
    x = 3 * picture()
    text = network(layer("Power", "power_param { power: 1 }", name="y"), layer(kind, parameters))
    if in_place:
        text = network(layer("Power", name="y"), layer(kind, parameters, bottoms="y"))
    else:
        text = network(layer(kind, parameters))
    found, _ = computed(tmp_path, text, x)
    np.testing.assert_allclose(found, expected(x).reshape(2, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_prelu_has_a_slope_for_each_channel_or_one(tmp_path: Path, shared: bool) -> None:
    x = picture()
    text = layer("PReLU", f"prelu_param {{ channel_shared: {str(shared).lower()} }}")
    found, blobs = computed(tmp_path, network(text), x)
    slope = blobs["y"][0].reshape(-1, 1, 1)
    np.testing.assert_allclose(found, np.where(x > 0, x, slope * x).reshape(2, -1), atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_power_takes_any_power(tmp_path: Path, power: float) -> None:
    x = np.abs(picture())
    text = layer("Power", f"power_param {{ power: {power} scale: 2 shift: 1 }}")
    found, _ = computed(tmp_path, network(text), x)
    np.testing.assert_allclose(found, ((2 * x + 1) ** power).reshape(2, -1), rtol=1e-5)


ELTWISE: dict[str, Any] = {
    "operation: PROD": lambda a, b, c: a * b * c,
    "operation: MAX": lambda a, b, c: np.maximum(np.maximum(a, b), c),
    "": lambda a, b, c: a + b + c,
    "coeff: 0.5 coeff: -1 coeff: 1": lambda a, b, c: 0.5 * a - b + c,
}


@pytest.mark.parametrize("parameters", ELTWISE)
def test_eltwise_combines_blobs(tmp_path: Path, parameters: str) -> None:
    x = picture()
    text = network(
        layer("TanH", name="a"),
        layer("AbsVal", name="b"),
        layer("Eltwise", f"eltwise_param {{ {parameters} }}", bottoms="a b x"),
    )
    found, _ = computed(tmp_path, text, x)
    expected = ELTWISE[parameters](np.tanh(x), np.abs(x), x)
    np.testing.assert_allclose(found, expected.reshape(2, -1), atol=1e-6)


ROUTES: dict[str, Any] = {
    "concat": (
        [layer("TanH", name="a"), layer("Concat", "concat_param { axis: -1 }", bottoms="a x x")],
        lambda x: np.concatenate([np.tanh(x), x, x], -1),
    ),
    "concat by its old field": (
        [
            layer("TanH", name="a"),
            layer("Concat", "concat_param { concat_dim: 2 }", bottoms="a x"),
        ],
        lambda x: np.concatenate([np.tanh(x), x], 2),
    ),
    "slice": (
        [
            layer("Slice", "slice_param { axis: 2 slice_point: 1 slice_point: 5 }", name="a")
            .replace('top: "a"', 'top: "a" top: "y" top: "c"')
        ],
        lambda x: x[:, :, 1:5],
    ),
    "slice in equal parts": (
        ['layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" top: "y" }'],
        lambda x: x[:, 2:],
    ),
    "split": (
        [
            'layer { name: "s" type: "Split" bottom: "x" top: "a" top: "b" }',
            layer("Eltwise", bottoms="a b"),
        ],
        lambda x: 2 * x,
    ),
    "flatten": (
        [layer("Flatten", "flatten_param { axis: 1 end_axis: 2 }", name="f"),
         layer("Softmax", "softmax_param { axis: 1 }", bottoms="f")],
        lambda x: _softmax(x.reshape(2, 21, 6), 1),
    ),
    "reshape": (
        [layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 6 } }", name="r"),
         layer("Softmax", "softmax_param { axis: 2 }", bottoms="r")],
        lambda x: _softmax(x.reshape(2, 21, 6), 2),
    ),
    "reshape of some axes": (
        [layer("Reshape", "reshape_param { axis: 1 num_axes: 2 shape { dim: 7 dim: 3 } }",
               name="r"),
         layer("Softmax", bottoms="r")],
        lambda x: _softmax(x.reshape(2, 7, 3, 6), 1),
    ),
    "crop": (
        [layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", name="p"),
         layer("Crop", "crop_param { axis: 2 offset: 1 offset: 2 }", bottoms="x p")],
        lambda x: x[:, :, 1:5, 2:5],
    ),
}  # fmt: skip


def _softmax(x: Array, axis: int) -> Array:
    powers: Array = np.exp(x)
    shares: Array = powers / powers.sum(axis, keepdims=True)
    return shares


@pytest.mark.parametrize("route", ROUTES)
def test_blobs_are_joined_cut_and_reshaped(tmp_path: Path, route: str) -> None:
    layers, expected = ROUTES[route]
    x = picture()
    found, _ = computed(tmp_path, network(*layers), x)
    np.testing.assert_allclose(found, expected(x).reshape(2, -1), atol=1e-6)
