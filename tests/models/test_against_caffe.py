"""The reader and the conversion against real Caffe, which has the last word."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.caffe.prototxt import read_prototxt
from models.caffe.schema import message
from models.caffe.shapes import infer
from models.caffe.to_onnx import to_onnx
from models.caffe.weights import read_caffemodel
from tests.models.caffe_files import (
    FORMATS,
    caffemodel,
    layer,
    network,
    picture,
    random_blobs,
    run,
    write_files,
)

Array = NDArray[Any]
_MESSAGE, _BYTES = 11, 12


class RealNet:
    """A network that Caffe itself runs."""

    def __init__(self, caffe: ModuleType, prototxt: Path, weights: Path) -> None:
        caffe.set_mode_cpu()
        self.net = caffe.Net(str(prototxt), caffe.TEST, weights=str(weights))

    def run(self, x: Array, *blobs: str) -> list[Array]:
        source = self.net.blobs[self.net.inputs[0]]
        source.reshape(*x.shape)
        source.data[...] = x
        self.net.forward()
        return [np.array(self.net.blobs[name].data).reshape(len(x), -1) for name in blobs]


def compare(caffe: ModuleType, folder: Path, text: str, x: Array, *, feature: str = "y") -> None:
    unused = 'layer { name: "unused" type: "InnerProduct" bottom: "x" top: "unused" '
    unused += "inner_product_param { num_output: 1 } }"
    prototxt, weights = write_files(folder, text + unused)
    found = run(to_onnx(prototxt, weights, feature=feature, latent=None), x)
    expected = RealNet(caffe, prototxt, weights).run(x, feature)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_the_wire_format_is_caffe_s(pycaffe: ModuleType) -> None:
    from caffe.proto import caffe_pb2

    for ours in message("NetParameter").DESCRIPTOR.file.message_types_by_name.values():
        theirs = getattr(caffe_pb2, ours.name).DESCRIPTOR.fields_by_name
        for field in ours.fields:
            if field.name in ("round_mode", "ceil_mode"):
                continue  # not of 1.0
            other = theirs[field.name]
            assert field.number == other.number, (ours.name, field.name)
            if field.type == _BYTES:
                continue  # packed numbers
            assert field.type == other.type, (ours.name, field.name)
            assert field.has_presence == other.has_presence, (ours.name, field.name)
            assert _values(field) == _values(other), (ours.name, field.name)


def _values(field: Any) -> dict[str, int]:
    return {value.name: value.number for value in (field.enum_type or _None).values}


class _None:
    values = ()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_caffe_s_numbers(
    tmp_path: Path, pycaffe: ModuleType, form: str
) -> None:
    # Caffe wants every top to have a name.
    text = FORMATS[form].replace('bottom: "classes" }', 'bottom: "classes" top: "prob" }')
    prototxt, weights = write_files(tmp_path, text)
    weights.write_bytes(caffemodel(random_blobs(prototxt), form))
    real = RealNet(pycaffe, prototxt, weights)
    x = picture((5, 3, 21, 21))
    for blob in ("conv1", "norm1", "conv2", "pool2", "fc3", "prob"):
        model = to_onnx(prototxt, weights, feature=blob, latent="encode")
        expected = real.run(x, blob, "encode")
        for found, value in zip(run(model, x), expected, strict=True):
            np.testing.assert_allclose(found, value, atol=2e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_shapes_and_weights_are_caffe_s(tmp_path: Path, pycaffe: ModuleType, form: str) -> None:
    text = FORMATS[form].replace('bottom: "classes" }', 'bottom: "classes" top: "prob" }')
    prototxt, weights = write_files(tmp_path, text)
    weights.write_bytes(caffemodel(random_blobs(prototxt), form))
    net = RealNet(pycaffe, prototxt, weights).net
    for sized in infer(read_prototxt(prototxt)):
        for name, shape in zip(sized.layer.tops, sized.tops, strict=True):
            assert tuple(net.blobs[name].shape) == shape
        blobs = net.params.get(sized.layer.name, [])
        assert [tuple(blob.shape) for blob in blobs] == sized.blobs
    net.save(str(tmp_path / "saved.caffemodel"))
    saved = read_caffemodel(tmp_path / "saved.caffemodel")
    for name, blobs in net.params.items():
        for blob, found in zip(blobs, saved[name], strict=True):
            np.testing.assert_array_equal(found, blob.data)


_SIZES = st.integers(1, 5)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(
    *itertools.repeat(st.tuples(_SIZES, _SIZES), 2),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.sampled_from(["MAX", "AVE"]),
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
)
def test_pooling_covers_what_caffe_s_covers(
    tmp_path: Path,
    pycaffe: ModuleType,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    pool: str,
    sides: tuple[int, int],
) -> None:
    assume(all(p < k and s <= k for p, k, s in zip(pad, kernel, stride, strict=True)))
    parameters = f"""pooling_param {{
        pool: {pool} kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]}
        stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]}
    }}"""
    x = picture((2, 3, *sides))
    compare(pycaffe, tmp_path, network(layer("Pooling", parameters), shape=x.shape), x)


LAYERS = {
    "convolution": [
        layer("Convolution", "convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 "
              "stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0 dilation: 2 group: 3 }")
    ],
    "deconvolution": [
        layer("Deconvolution", "convolution_param { num_output: 6 kernel_size: 4 stride: 2 "
              "pad: 1 group: 3 bias_term: false }")
    ],
    "transposed product": [
        layer("InnerProduct", "inner_product_param { num_output: 5 transpose: true }")
    ],
    "product of rows": [
        layer("InnerProduct", "inner_product_param { num_output: 5 axis: 3 }")
    ],
    "large product": [
        layer("Convolution", "convolution_param { num_output: 64 kernel_size: 1 }", name="c"),
        layer("InnerProduct", "inner_product_param { num_output: 500 }", bottoms="c"),
    ],
    "lrn": [layer("LRN", "lrn_param { local_size: 3 alpha: 2 beta: 0.4 k: 3 }")],
    "lrn within": [
        layer("LRN", "lrn_param { local_size: 3 alpha: 2 beta: 0.4 k: 3 "
              "norm_region: WITHIN_CHANNEL }")
    ],
    "batch norm and scale": [
        layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", name="c"),
        layer("BatchNorm", "batch_norm_param { eps: 0.001 }", name="b", bottoms="c"),
        layer("Scale", "scale_param { bias_term: true }", bottoms="b"),
    ],
    "scale of two axes": [layer("Scale", "scale_param { num_axes: 2 bias_term: true }")],
    "scale from the network": [
        layer("Pooling", "pooling_param { pool: AVE global_pooling: true }", name="p"),
        layer("Flatten", name="f", bottoms="p"),
        layer("Scale", "scale_param { axis: 0 }", bottoms="x f"),
    ],
    "bias": [layer("Bias", "bias_param { axis: -1 }")],
    "relu": [layer("ReLU", "relu_param { negative_slope: 0.2 }")],
    "prelu": [layer("PReLU")],
    "elu": [layer("ELU", "elu_param { alpha: 0.4 }")],
    "bnll": [layer("BNLL")],
    "exp": [layer("Exp", "exp_param { base: 3 scale: 0.5 shift: -1 }")],
    "log": [
        layer("AbsVal", name="a"),
        layer("Log", "log_param { base: 2 shift: 1 }", bottoms="a"),
    ],
    "power": [
        layer("AbsVal", name="a"),
        layer("Power", "power_param { power: 1.5 scale: 3 shift: 0.5 }", bottoms="a"),
    ],
    "nothing to the power of nothing": [layer("Power", "power_param { power: 0 scale: 0 }")],
    "pooling that rounds down": [
        layer("Pooling", "pooling_param { kernel_size: 3 stride: 2 pad: 1 ceil_mode: false }")
    ],
    "sigmoid and tanh": [layer("Sigmoid", name="s"), layer("TanH", bottoms="s")],
    "softmax": [layer("Softmax")],
    "product of blobs": [
        layer("TanH", name="t"),
        layer("Eltwise", "eltwise_param { operation: PROD }", bottoms="t x x"),
    ],
    "largest of blobs": [
        layer("TanH", name="t"),
        layer("Eltwise", "eltwise_param { operation: MAX }", bottoms="t x"),
    ],
    "weighted sum": [
        layer("TanH", name="t"),
        layer("Eltwise", "eltwise_param { coeff: 2 coeff: -1 }", bottoms="t x"),
    ],
    "reshape": [
        layer("Reshape", "reshape_param { axis: 1 num_axes: 2 shape { dim: -1 dim: 3 } }",
              name="r"),
        layer("Softmax", bottoms="r"),
    ],
    "crop": [
        layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", name="p"),
        layer("Crop", "crop_param { offset: 2 offset: 1 }", bottoms="x p"),
    ],
    "in place": [
        layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 }"),
        layer("BatchNorm", name="y", bottoms="y").replace('"y" type', '"b" type'),
        layer("ReLU", name="y", bottoms="y").replace('"y" type', '"r" type'),
        layer("Dropout", name="y", bottoms="y").replace('"y" type', '"d" type'),
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_layers_give_caffe_s_numbers(tmp_path: Path, pycaffe: ModuleType, case: str) -> None:
    compare(pycaffe, tmp_path, network(*LAYERS[case], shape=(2, 3, 8, 6)), picture((2, 3, 8, 6)))
