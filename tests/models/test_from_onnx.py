"""The Caffe files are run by a plain numpy reading of Caffe's layers, written for these tests."""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models.caffe.from_onnx import CaffeForm, from_onnx
from models.caffe.schema import message
from models.caffe.weights import read_caffemodel
from models.errors import NetworkError

Arrays = dict[str, np.ndarray]


def patches(x: np.ndarray, kernel: tuple[int, int], stride: tuple[int, int], dilation: int = 1):
    """Yield row, column and the pixels under each window, without padding."""
    reach = [(side - 1) * dilation + 1 for side in kernel]
    for top in range(0, x.shape[2] - reach[0] + 1, stride[0]):
        for left in range(0, x.shape[3] - reach[1] + 1, stride[1]):
            rows, columns = (
                slice(at, at + r, dilation) for at, r in zip((top, left), reach, strict=True)
            )
            yield top // stride[0], left // stride[1], x[:, :, rows, columns]


def convolved(x: np.ndarray, p, blobs: list[np.ndarray]) -> np.ndarray:
    weight = blobs[0]
    x = np.pad(x, ((0, 0), (0, 0), (p.pad_h,) * 2, (p.pad_w,) * 2))
    dilation = p.dilation[0] if p.dilation else 1
    found, wide = {}, x.shape[1] // p.group
    for row, column, part in patches(x, weight.shape[2:], (p.stride_h, p.stride_w), dilation):
        groups = [
            np.einsum("nchw,ochw->no", part[:, g * wide : (g + 1) * wide], w)
            for g, w in enumerate(np.split(weight, p.group))
        ]
        found[row, column] = np.concatenate(groups, axis=1)
    rows, columns = (max(key[axis] for key in found) + 1 for axis in (0, 1))
    out = np.stack([found[r, c] for r in range(rows) for c in range(columns)], axis=-1)
    out = out.reshape(*out.shape[:2], rows, columns)
    return out + (blobs[1][:, None, None] if p.bias_term else 0)


def pooled(x: np.ndarray, p) -> np.ndarray:
    """PoolingLayer::Forward_cpu of Caffe 1.0: windows are cut at the border."""
    if p.global_pooling:
        return x.mean(axis=(2, 3), keepdims=True)
    axes = []
    for side, kernel, stride, pad in zip(
        x.shape[2:],
        (p.kernel_h, p.kernel_w),
        (p.stride_h, p.stride_w),
        (p.pad_h, p.pad_w),
        strict=True,
    ):
        count = math.ceil((side + 2 * pad - kernel) / stride) + 1
        if pad and (count - 1) * stride >= side + pad:
            count -= 1
        starts = [index * stride - pad for index in range(count)]
        # Where it begins and ends within the picture, and what a mean divides by.
        axes.append(
            [(max(s, 0), min(s + kernel, side), min(s + kernel, side + pad) - s) for s in starts]
        )
    out = np.empty((*x.shape[:2], len(axes[0]), len(axes[1])), np.float32)
    for row, (top, bottom, height) in enumerate(axes[0]):
        for column, (left, right, width) in enumerate(axes[1]):
            window = x[:, :, top:bottom, left:right]
            if not window.size:  # Caffe makes such windows where the stride is over the kernel
                out[:, :, row, column] = np.nan
                continue
            mean = window.sum(axis=(2, 3)) / (height * width)
            out[:, :, row, column] = mean if p.pool else window.max(axis=(2, 3))
    return out


def normalised(x: np.ndarray, p) -> np.ndarray:
    half = p.local_size // 2
    squares = np.pad(x**2, ((0, 0), (half, half), (0, 0), (0, 0)))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(p.local_size))
    return x / (p.k + p.alpha / p.local_size * total) ** p.beta


def run(form: CaffeForm, picture: np.ndarray, folder: Path) -> Arrays:
    """Run Caffe files; returns every blob by its name."""
    (folder / "weights").write_bytes(form.weights)
    parameters = message("NetParameter")
    parameters.ParseFromString(form.weights)
    weights = read_caffemodel(folder / "weights") if parameters.layer else {}
    net = message("NetParameter")
    text_format.Parse(form.prototxt.decode(), net)
    blobs: Arrays = {}
    for layer in net.layer:
        bottoms = [blobs[name] for name in layer.bottom]
        if layer.type == "Input":
            assert tuple(layer.input_param.shape[0].dim)[1:] == picture.shape[1:]
            tops = [picture]
        elif layer.type == "Slice":
            tops = np.split(bottoms[0], layer.slice_param.slice_point, axis=layer.slice_param.axis)
        elif layer.type == "Silence":
            tops = []
        else:
            tops = [computed(layer, bottoms, weights.get(layer.name, []))]
        blobs |= dict(zip(layer.top, tops, strict=True))
    return blobs


def computed(layer, bottoms: list[np.ndarray], blobs: list[np.ndarray]) -> np.ndarray:
    x = bottoms[0]
    if layer.type == "Convolution":
        return convolved(x, layer.convolution_param, blobs)
    if layer.type == "InnerProduct":
        flat = x.reshape(len(x), -1) @ blobs[0].T
        return flat + blobs[1] if layer.inner_product_param.bias_term else flat
    if layer.type == "Pooling":
        return pooled(x, layer.pooling_param)
    if layer.type == "LRN":
        return normalised(x, layer.lrn_param)
    if layer.type == "Eltwise":
        coeff = layer.eltwise_param.coeff or [1] * len(bottoms)
        return sum(np.float32(c) * b for c, b in zip(coeff, bottoms, strict=True))
    plain = {
        "ReLU": lambda: np.maximum(x, 0),
        "Sigmoid": lambda: 1 / (1 + np.exp(-x)),
        "Concat": lambda: np.concatenate(bottoms, axis=1),
        "Reshape": lambda: x.reshape(
            [
                x.shape[at] if size == 0 else size
                for at, size in enumerate(layer.reshape_param.shape.dim)
            ]
        ),
        "Flatten": lambda: x.reshape(len(x), -1),
        "Power": lambda: x + np.float32(layer.power_param.shift),
    }
    return plain[layer.type]()


def model(nodes: list, constants: Arrays, shape: tuple[int, ...]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tried",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(v if v.dtype == np.int64 else v.astype(np.float32), name)
            for name, v in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_output(network: onnx.ModelProto, picture: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"x": picture})[0]


def assert_same(network: onnx.ModelProto, shape: tuple[int, ...], folder: Path) -> None:
    picture = np.random.default_rng(1).standard_normal((2, *shape), np.float32) * 4
    expected = onnx_output(network, picture)
    form = from_onnx(network)
    found = run(form, picture, folder)[form.blobs["y"]]
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forms")


pads = st.integers(0, 3)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(pads, pads, pads, pads),
    st.integers(1, 2),
    st.sampled_from([1, 2, 4]),
)
def test_a_convolution_may_pad_its_sides_differently(
    folder: Path,
    side: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: int,
    group: int,
) -> None:
    reach = [(k - 1) * dilation + 1 for k in kernel]
    assume(all(s + a + b >= r for s, a, b, r in zip(side, pads[:2], pads[2:], reach, strict=True)))
    rng = np.random.default_rng(0)
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        strides=strides,
        pads=pads,
        group=group,
        dilations=[dilation] * 2,
    )
    constants = {"w": rng.standard_normal((4, 4 // group, *kernel)), "b": rng.standard_normal(4)}
    assert_same(model([node], constants, (4, *side)), (4, *side), folder)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["MaxPool", "AveragePool"]),
    st.integers(3, 10),
    st.integers(2, 3),
    st.integers(1, 3),
    st.integers(0, 1),
    st.booleans(),
)
def test_pooling_may_round_up_or_down(
    folder: Path, kind: str, side: int, kernel: int, stride: int, pad: int, up: bool
) -> None:
    extra = {"count_include_pad": 1} if kind == "AveragePool" and pad else {}
    # ONNX Runtime and Caffe divide a mean that is cut off differently where it is padded too,
    # and ONNX's inferred shapes count windows that begin outside the picture.
    assume(not (up and (pad or stride > kernel)))
    node = helper.make_node(
        kind,
        ["x"],
        ["y"],
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[pad] * 4,
        ceil_mode=int(up),
        **extra,
    )
    assert_same(model([node], {}, (2, side, side)), (2, side, side), folder)


def test_relu6_leaves_what_is_below_six_to_the_last_bit(folder: Path) -> None:
    node = helper.make_node("Clip", ["x", "zero", "six"], ["y"])
    network = model([node], {"zero": np.zeros(()), "six": np.full((), 6)}, (1, 8, 8))
    picture = np.random.default_rng(0).uniform(-3, 9, (40, 1, 8, 8)).astype(np.float32)
    found = run(from_onnx(network), picture, folder)["y"]
    expected = picture.clip(0, 6)
    assert np.array_equal(found[picture <= 6], expected[picture <= 6])
    assert np.abs(found - expected).max() < 1e-6


def whole_network() -> onnx.ModelProto:
    """A network with every operator that can be written but pooling over windows."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["/a/conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["/a/conv"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["sum"]),
        helper.make_node("LRN", ["sum"], ["norm"], size=3, alpha=0.5, beta=0.75, bias=2.0),
        helper.make_node("Dropout", ["norm"], ["same"]),
        helper.make_node("GlobalAveragePool", ["same"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc", "bias"], ["raw"], alpha=0.5, beta=2.0),
        helper.make_node("Sigmoid", ["raw"], ["bent"]),
        helper.make_node("Unsqueeze", ["bent", "axes"], ["pixel"]),
        helper.make_node("Reshape", ["raw", "shape"], ["other"]),
        helper.make_node("Concat", ["pixel", "other"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "last"], ["y"]),
    ]
    constants = {
        "w": rng.standard_normal((4, 4, 3, 3)),
        "fc": rng.standard_normal((4, 6)),
        "bias": rng.standard_normal(6),
        "last": rng.standard_normal((3, 12, 1, 1)),
        "shape": np.array([0, 6, 1, -1]),
        "axes": np.array([2, 3]),
    }
    return model(nodes, constants, (4, 7, 7))


def strided_network() -> onnx.ModelProto:
    """A convolution that is sliced at both ends of one axis, ReLU6, and both kinds of pooling."""
    rng = np.random.default_rng(6)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["map"], strides=[2, 2], pads=[1, 0, 0, 1], group=2),
        helper.make_node("Clip", ["map", "zero", "six"], ["cut"]),
        helper.make_node("MaxPool", ["cut"], ["most"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("AveragePool", ["most"], ["y"], kernel_shape=[2, 2], strides=[1, 1]),
    ]
    constants = {
        "w": rng.standard_normal((4, 2, 3, 3)),
        "zero": np.zeros(()),
        "six": np.full((), 6.0),
    }
    return model(nodes, constants, (4, 16, 16))


def test_the_layers_of_a_whole_network_follow_one_another(folder: Path) -> None:
    assert_same(whole_network(), (4, 7, 7), folder)
    assert_same(strided_network(), (4, 16, 16), folder)
    assert from_onnx(whole_network()) == from_onnx(whole_network())


@pytest.mark.parametrize(("make", "side"), [(whole_network, 7), (strided_network, 16)])
def test_real_caffe_runs_what_is_written(
    pycaffe: ModuleType, tmp_path: Path, make: Callable[[], onnx.ModelProto], side: int
) -> None:
    network = make()
    form = from_onnx(network)
    (tmp_path / "net.prototxt").write_bytes(form.prototxt)
    (tmp_path / "net.caffemodel").write_bytes(form.weights)
    picture = np.random.default_rng(1).standard_normal((3, 4, side, side), np.float32) * 4
    pycaffe.set_mode_cpu()
    net = pycaffe.Net(
        str(tmp_path / "net.prototxt"), pycaffe.TEST, weights=str(tmp_path / "net.caffemodel")
    )
    net.blobs["x"].reshape(*picture.shape)
    net.blobs["x"].data[...] = picture
    net.forward()
    # What is sliced off is no output of the network.
    assert list(net.outputs) == [form.blobs["y"]]
    assert np.allclose(net.blobs[form.blobs["y"]].data, onnx_output(network, picture), atol=1e-4)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("HardSwish", ["x"], ["y"], name="odd"), r"'odd' \(HardSwish\) has no"),
        (helper.make_node("Add", ["x", "c"], ["y"]), "adds what is a constant"),
        (helper.make_node("Conv", ["x", "x"], ["y"]), "has to be a constant"),
        (helper.make_node("Clip", ["x", "c"], ["y"]), "cuts below 1"),
        (helper.make_node("Clip", ["x", "x"], ["y"]), "computes its limits"),
        (helper.make_node("Concat", ["x", "x"], ["y"], axis=2), "anything but channels"),
        (helper.make_node("Reshape", ["x", "two"], ["y"]), "a fixed number of images"),
        (helper.make_node("Relu", ["c"], ["y"]), "computes with 'c', which is a constant"),
        (helper.make_node("Flatten", ["x"], ["y"], axis=2), "more or less than each image"),
    ],
)
def test_what_caffe_cannot_do_is_named(node: onnx.NodeProto, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        from_onnx(model([node], {"c": np.ones(()), "two": np.array([2, -1])}, (2, 4, 4)))
