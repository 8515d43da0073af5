"""Caffe files for tests: one small network in all three formats, and weights for any network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from models.caffe.prototxt import read_prototxt
from models.caffe.schema import message
from models.caffe.shapes import infer
from models.caffe.to_onnx import to_onnx

Array = NDArray[Any]
Blobs = Mapping[str, Sequence[Array]]

TODAY = """
name: "small"
layer {
  name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 21 dim: 21 } }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer {
  name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 }
}
layer {
  name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
  lrn_param { local_size: 5 alpha: 0.1 beta: 0.75 }
}
layer {
  name: "conv2" type: "Convolution" bottom: "norm1" top: "conv2"
  convolution_param { num_output: 6 pad: 2 kernel_size: 5 group: 2 }
}
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer {
  name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: AVE pad: 1 kernel_size: 3 stride: 2 }
}
layer {
  name: "fc3" type: "InnerProduct" bottom: "pool2" top: "fc3"
  inner_product_param { num_output: 10 }
}
layer { name: "relu3" type: "ReLU" bottom: "fc3" top: "fc3" }
layer {
  name: "drop3" type: "Dropout" bottom: "fc3" top: "fc3" dropout_param { dropout_ratio: 0.7 }
}
layer {
  name: "code" type: "InnerProduct" bottom: "fc3" top: "code"
  inner_product_param { num_output: 12 }
}
layer { name: "encode" type: "Sigmoid" bottom: "code" top: "encode" }
layer {
  name: "classes" type: "InnerProduct" bottom: "encode" top: "classes"
  inner_product_param { num_output: 4 bias_term: false }
}
layer { name: "prob" type: "Softmax" bottom: "classes" top: "prob" }
"""

V1 = """
name: "small"
input: "data"
input_dim: 2 input_dim: 3 input_dim: 21 input_dim: 21
layers {
  name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } }
}
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers {
  name: "pool1" type: POOLING bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 }
}
layers {
  name: "norm1" type: LRN bottom: "pool1" top: "norm1"
  lrn_param { local_size: 5 alpha: 0.1 beta: 0.75 }
}
layers {
  name: "conv2" type: CONVOLUTION bottom: "norm1" top: "conv2"
  convolution_param { num_output: 6 pad: 2 kernel_size: 5 group: 2 }
}
layers { name: "relu2" type: RELU bottom: "conv2" top: "conv2" }
layers {
  name: "pool2" type: POOLING bottom: "conv2" top: "pool2"
  pooling_param { pool: AVE pad: 1 kernel_size: 3 stride: 2 }
}
layers {
  name: "fc3" type: INNER_PRODUCT bottom: "pool2" top: "fc3"
  inner_product_param { num_output: 10 }
}
layers { name: "relu3" type: RELU bottom: "fc3" top: "fc3" }
layers {
  name: "drop3" type: DROPOUT bottom: "fc3" top: "fc3" dropout_param { dropout_ratio: 0.7 }
}
layers {
  name: "code" type: INNER_PRODUCT bottom: "fc3" top: "code"
  inner_product_param { num_output: 12 }
}
layers { name: "encode" type: SIGMOID bottom: "code" top: "encode" }
layers {
  name: "classes" type: INNER_PRODUCT bottom: "encode" top: "classes"
  inner_product_param { num_output: 4 bias_term: false }
}
layers { name: "prob" type: SOFTMAX bottom: "classes" top: "prob" }
"""

V0 = """
name: "small"
input: "data"
input_dim: 2
input_dim: 3
input_dim: 21
input_dim: 21
layers {
  layer {
    name: "conv1" type: "conv" num_output: 8 kernelsize: 5 stride: 2
    weight_filler { type: "xavier" } blobs_lr: 1. blobs_lr: 2.
  }
  bottom: "data" top: "conv1"
}
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers {
  layer { name: "pool1" type: "pool" pool: MAX kernelsize: 3 stride: 2 }
  bottom: "conv1" top: "pool1"
}
layers {
  layer { name: "norm1" type: "lrn" local_size: 5 alpha: 0.1 beta: 0.75 }
  bottom: "pool1" top: "norm1"
}
layers { layer { name: "pad2" type: "padding" pad: 2 } bottom: "norm1" top: "pad2" }
layers {
  layer { name: "conv2" type: "conv" num_output: 6 group: 2 kernelsize: 5 }
  bottom: "pad2" top: "conv2"
}
layers { layer { name: "relu2" type: "relu" } bottom: "conv2" top: "conv2" }
layers {
  layer { name: "pool2" type: "pool" pool: AVE pad: 1 kernelsize: 3 stride: 2 }
  bottom: "conv2" top: "pool2"
}
layers {
  layer { name: "fc3" type: "innerproduct" num_output: 10 }
  bottom: "pool2" top: "fc3"
}
layers { layer { name: "relu3" type: "relu" } bottom: "fc3" top: "fc3" }
layers {
  layer { name: "drop3" type: "dropout" dropout_ratio: 0.7 } bottom: "fc3" top: "fc3"
}
layers { layer { name: "code" type: "innerproduct" num_output: 12 } bottom: "fc3" top: "code" }
layers { layer { name: "encode" type: "sigmoid" } bottom: "code" top: "encode" }
layers {
  layer { name: "classes" type: "innerproduct" num_output: 4 biasterm: false }
  bottom: "encode" top: "classes"
}
layers { layer { name: "prob" type: "softmax" } bottom: "classes" }
"""

FORMATS = {"today": TODAY, "v1": V1, "v0": V0}


def network(*layers: str, shape: tuple[int, ...] = (2, 3, 7, 6)) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return f'input: "x" input_shape {{ {dims} }}\n' + "\n".join(layers)


def layer(kind: str, parameters: str = "", *, name: str = "y", bottoms: str = "x") -> str:
    reads = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{name}" {parameters} }}'


def picture(shape: tuple[int, ...] = (2, 3, 7, 6), seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_blobs(prototxt: Path, seed: int = 0) -> dict[str, list[Array]]:
    """Make weights for every layer of a network that has some."""
    rng = np.random.default_rng(seed)
    return {
        sized.layer.name: [_random(rng, sized.layer.type, shape) for shape in sized.blobs]
        for sized in infer(read_prototxt(prototxt))
        if sized.blobs
    }


def _random(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Array:
    if kind == "BatchNorm":
        return rng.uniform(0.5, 2, shape).astype(np.float32)
    fan_in = math.prod(shape[1:]) or 1
    return (rng.normal(size=shape) / math.sqrt(fan_in)).astype(np.float32)


def caffemodel(blobs: Blobs, form: str = "today") -> bytes:
    """Write weights as the Caffe of a format's time did."""
    net = message("NetParameter")
    for name, arrays in blobs.items():
        if form == "today":
            layer = net.layer.add(name=name)
        elif form == "v1":
            layer = net.layers.add(name=name)
        else:
            layer = net.layers.add().layer
            layer.name = name
        for array in arrays:
            _put(layer.blobs.add(), array, old=form != "today")
    return bytes(net.SerializeToString())


def _put(blob: Any, array: Array, *, old: bool) -> None:
    if old:
        four = (1,) * (4 - array.ndim) + array.shape
        blob.num, blob.channels, blob.height, blob.width = four
    else:
        blob.shape.dim.extend(array.shape)
    blob.data = array.astype("<f4").tobytes()


def write_files(folder: Path, prototxt: str, blobs: Blobs | None = None) -> tuple[Path, Path]:
    """Write a network and its weights, random ones where none are given."""
    text, weights = folder / "deploy.prototxt", folder / "weights.caffemodel"
    text.write_text(prototxt)
    weights.write_bytes(caffemodel(random_blobs(text) if blobs is None else blobs) or b"")
    return text, weights


def converted(
    folder: Path, prototxt: str, blobs: Blobs | None = None, **options: Any
) -> onnx.ModelProto:
    """Write a network's files and convert them."""
    text, weights = write_files(folder, prototxt, blobs)
    return to_onnx(text, weights, **{"latent": None, **options})


def run(model: onnx.ModelProto, x: Array) -> list[Array]:
    """Run a network that has one input."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    session = InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(value) for value in session.run(None, {model.graph.input[0].name: x})]
