"""CaffeNet and AlexNet with a latent sigmoid layer of any number of bits, for stock Caffe.

AlexNet is that of Krizhevsky et al. (NIPS 2012); CaffeNet is the same with pooling before
normalisation. The latent layer and the training recipe are those of Lin et al., "Deep Learning of
Binary Hash Codes for Fast Image Retrieval" (CVPRW 2015, section 3.2) and of the networks that
they published, whose layer names are kept: `fc8_kevin`, its sigmoid `fc8_kevin_encode`, and the
class layer `fc8_pascal` on top of the code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.caffe.schema import message
from models.caffe.write import NetWriter, caffemodel, text_of

INPUT, FEATURE, LATENT, CLASSES = "data", "fc7", "fc8_kevin_encode", "fc8_pascal"
INPUT_PX = 227
MIN_BITS, MAX_BITS = 8, 256
LATENT_LAYER = "fc8_kevin"

_DEPLOY_BATCH, _TRAIN_BATCH, _TEST_BATCH = 10, 32, 100


@dataclass(frozen=True)
class Topology:
    """A member of the family.

    Attributes:
        name: What the network calls itself.
        pool_first: Whether pooling comes before local response normalisation.
        bias: Initial bias of the layers that do not begin at 0.
        pretrained: The published ImageNet weights that the paper's training starts from.
    """

    name: str
    pool_first: bool
    bias: float
    pretrained: str


TOPOLOGIES = {
    "caffenet": Topology("CaffeNet", True, 1.0, "bvlc_reference_caffenet.caffemodel"),
    "alexnet": Topology("AlexNet", False, 0.1, "bvlc_alexnet.caffemodel"),
}


@dataclass(frozen=True)
class Conv:
    """A convolution; `biased` where its bias does not begin at 0."""

    name: str
    channels: int
    kernel: int
    stride: int = 1
    pad: int = 0
    group: int = 1
    biased: bool = False


_CONVS = (
    Conv("conv1", 96, 11, stride=4),
    Conv("conv2", 256, 5, pad=2, group=2, biased=True),
    Conv("conv3", 384, 3, pad=1),
    Conv("conv4", 384, 3, pad=1, group=2, biased=True),
    Conv("conv5", 256, 3, pad=1, group=2, biased=True),
)
_POOLED = ("conv1", "conv2", "conv5")
_POOL5_VALUES = 256 * 6 * 6
_FC_VALUES = 4096
# Of the values 0 to 255 of a photo, about; random weights bring them down to 1.
_PICTURE_DEVIATION = 64.0


def deploy(topology: str, *, bits: int) -> str:
    """Write the network that gives features and codes.

    Args:
        topology: A key of `TOPOLOGIES`.
        bits: B, 8 to 256.

    Returns:
        A deploy prototxt in today's format: `data` (N, 3, 227, 227) to `fc7` (N, 4096) and
        `fc8_kevin_encode` (N, B).

    Raises:
        ValueError: There is no such topology, or `bits` is out of range.
    """
    net = _Net(_checked(topology, bits), training=False)
    net.writer.input(INPUT, (_DEPLOY_BATCH, 3, INPUT_PX, INPUT_PX))
    net.trunk(bits)
    return net.writer.prototxt(f"{net.topology.name} with a code of {bits} bits, to be deployed.")


def train_val(topology: str, *, bits: int, classes: int) -> str:
    """Write the network that learns the code from class labels.

    It expects the LMDB folders `train_lmdb` and `val_lmdb` and the mean image `mean.binaryproto`
    in the working directory, as Caffe's `convert_imageset --resize_height=256
    --resize_width=256` and `compute_image_mean` make them.

    Args:
        topology: A key of `TOPOLOGIES`.
        bits: B, 8 to 256.
        classes: Number of class labels, at least 2.

    Raises:
        ValueError: There is no such topology, or a number is out of range.
    """
    if classes < 2:
        raise ValueError(f"expected at least 2 classes, got {classes}")
    net = _Net(_checked(topology, bits), training=True)
    net.data("TRAIN", "train_lmdb", _TRAIN_BATCH, mirror=True)
    net.data("TEST", "val_lmdb", _TEST_BATCH, mirror=False)
    net.trunk(bits)
    # The class layer alone begins from nothing, and learns ten times as fast.
    net.inner_product(CLASSES, LATENT, classes, std=0.01, bias=0.0, speed=10)
    accuracy = net.writer.layer("accuracy", "Accuracy", [CLASSES, "label"])
    accuracy.include.add(phase=1)
    net.writer.layer("loss", "SoftmaxWithLoss", [CLASSES, "label"])
    return net.writer.prototxt(f"{net.topology.name} with a code of {bits} bits, to be trained.")


def solver(topology: str, *, bits: int) -> str:
    """Write the paper's training recipe: 50,000 steps of SGD, ten times slower for the last half.

    Args:
        topology: A key of `TOPOLOGIES`.
        bits: B, 8 to 256.

    Raises:
        ValueError: There is no such topology, or `bits` is out of range.
    """
    chosen = _checked(topology, bits)
    recipe = message("SolverParameter")
    recipe.net = "train_val.prototxt"
    recipe.test_iter.append(100)
    recipe.test_interval, recipe.display = 1000, 20
    recipe.base_lr, recipe.lr_policy, recipe.gamma, recipe.stepsize = 0.001, "step", 0.1, 25_000
    recipe.max_iter, recipe.momentum, recipe.weight_decay = 50_000, 0.9, 0.0005
    recipe.snapshot, recipe.snapshot_prefix = 10_000, f"{topology}_{bits}"
    return text_of(
        recipe,
        "Start from the published ImageNet weights, which fill all layers but the last two:",
        f"caffe train -solver solver.prototxt -weights {chosen.pretrained}",
        "Without a GPU add the line: solver_mode: CPU",
    )


def random_weights(topology: str, *, bits: int, seed: int) -> bytes:
    """Make a caffemodel of random weights, scaled so that every layer's values are about 1.

    Weights are normal with variance 2 / fan-in (He et al., ICCV 2015), 1 / fan-in in the latent
    layer; biases are small. Equal arguments give equal bytes.

    Args:
        topology: A key of `TOPOLOGIES`.
        bits: B, 8 to 256.
        seed: Of the generator.

    Returns:
        Contents of a file that goes with `deploy(topology, bits=bits)`.

    Raises:
        ValueError: There is no such topology, or `bits` is out of range.
    """
    chosen = _checked(topology, bits)
    rng = np.random.default_rng(seed)
    blobs = {name: _drawn(rng, shape, gain) for name, shape, gain in _weight_shapes(bits)}
    return caffemodel(blobs, name=chosen.name)


def _checked(topology: str, bits: int) -> Topology:
    if topology not in TOPOLOGIES:
        raise ValueError(f"expected one of {', '.join(TOPOLOGIES)}, got {topology!r}")
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"expected {MIN_BITS} to {MAX_BITS} bits, got {bits}")
    return TOPOLOGIES[topology]


def _weight_shapes(bits: int) -> list[tuple[str, tuple[int, ...], float]]:
    """List the layers with weights: name, shape of the weights, and variance times fan-in."""
    found: list[tuple[str, tuple[int, ...], float]] = []
    channels = 3
    for conv in _CONVS:
        shape = (conv.channels, channels // conv.group, conv.kernel, conv.kernel)
        found.append((conv.name, shape, 2.0 if found else 2.0 / _PICTURE_DEVIATION**2))
        channels = conv.channels
    found.append(("fc6", (_FC_VALUES, _POOL5_VALUES), 2.0))
    found.append(("fc7", (_FC_VALUES, _FC_VALUES), 2.0))
    found.append((LATENT_LAYER, (bits, _FC_VALUES), 1.0))
    return found


def _drawn(
    rng: np.random.Generator, shape: tuple[int, ...], gain: float
) -> list[NDArray[np.float32]]:
    deviation = np.float32(np.sqrt(gain / np.prod(shape[1:])))
    weight = rng.standard_normal(shape, np.float32) * deviation
    return [weight, rng.standard_normal(shape[0], np.float32) * np.float32(0.01)]


class _Net:
    """Adds the layers, with what only training needs where it is for training."""

    def __init__(self, topology: Topology, *, training: bool) -> None:
        self.topology = topology
        self.writer = NetWriter(topology.name)
        self._training = training

    def data(self, phase: str, source: str, batch: int, *, mirror: bool) -> None:
        layer = self.writer.layer("data", "Data", tops=[INPUT, "label"])
        layer.include.add(phase=("TRAIN", "TEST").index(phase))
        layer.transform_param.mirror = mirror
        layer.transform_param.crop_size = INPUT_PX
        layer.transform_param.mean_file = "mean.binaryproto"
        layer.data_param.source = source
        layer.data_param.batch_size = batch
        layer.data_param.backend = 1  # LMDB

    def trunk(self, bits: int) -> None:
        last = INPUT
        for number, conv in enumerate(_CONVS, start=1):
            last = self._convolution(conv, last, number)
        for number in (6, 7):
            name = f"fc{number}"
            self.inner_product(name, last, _FC_VALUES, std=0.005, bias=self.topology.bias)
            self.writer.layer(f"relu{number}", "ReLU", [name], [name])
            drop = self.writer.layer(f"drop{number}", "Dropout", [name], [name])
            drop.dropout_param.dropout_ratio = 0.5
            last = name
        self.inner_product(LATENT_LAYER, last, bits, std=0.005, bias=1.0)
        self.writer.layer(LATENT, "Sigmoid", [LATENT_LAYER])

    def inner_product(
        self, name: str, bottom: str, outputs: int, *, std: float, bias: float, speed: int = 1
    ) -> None:
        layer = self.writer.layer(name, "InnerProduct", [bottom])
        layer.inner_product_param.num_output = outputs
        self._learn(layer, layer.inner_product_param, std=std, bias=bias, speed=speed)

    def _convolution(self, conv: Conv, bottom: str, number: int) -> str:
        layer = self.writer.layer(conv.name, "Convolution", [bottom])
        parameters = layer.convolution_param
        parameters.num_output = conv.channels
        parameters.kernel_size.append(conv.kernel)
        if conv.stride > 1:
            parameters.stride.append(conv.stride)
        if conv.pad:
            parameters.pad.append(conv.pad)
        if conv.group > 1:
            parameters.group = conv.group
        bias = self.topology.bias if conv.biased else 0.0
        self._learn(layer, parameters, std=0.01, bias=bias)
        self.writer.layer(f"relu{number}", "ReLU", [conv.name], [conv.name])
        if conv.name not in _POOLED:
            return conv.name
        if number == len(_CONVS):
            return self._pool(conv.name, number)
        steps: list[Callable[[str, int], str]] = [self._pool, self._normalise]
        first, second = steps if self.topology.pool_first else reversed(steps)
        return second(first(conv.name, number), number)

    def _pool(self, bottom: str, number: int) -> str:
        pooling = self.writer.layer(f"pool{number}", "Pooling", [bottom]).pooling_param
        pooling.pool, pooling.kernel_size, pooling.stride = 0, 3, 2
        return f"pool{number}"

    def _normalise(self, bottom: str, number: int) -> str:
        lrn = self.writer.layer(f"norm{number}", "LRN", [bottom]).lrn_param
        lrn.local_size, lrn.alpha, lrn.beta = 5, 0.0001, 0.75
        return f"norm{number}"

    def _learn(
        self, layer: Any, parameters: Any, *, std: float, bias: float, speed: int = 1
    ) -> None:
        if not self._training:
            return
        layer.param.add(lr_mult=speed, decay_mult=1)
        layer.param.add(lr_mult=2 * speed, decay_mult=0)
        parameters.weight_filler.type, parameters.weight_filler.std = "gaussian", std
        parameters.bias_filler.type, parameters.bias_filler.value = "constant", bias
