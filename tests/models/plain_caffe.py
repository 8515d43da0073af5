"""A plain numpy reading of Caffe's layers, to run the Caffe files that are written."""

import math
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from models.caffe.from_onnx import CaffeForm
from models.caffe.schema import message
from models.caffe.weights import read_caffemodel

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


def run_plainly(form: CaffeForm, picture: np.ndarray, folder: Path) -> Arrays:
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
