"""Bases that are Caffe's: a caffemodel that somebody brings, and networks without weights."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from models.caffe import topologies
from models.caffe.to_onnx import to_onnx
from models.errors import TrainingError
from models.mean import Mean, read_any_mean
from models.pictures import CAFFE_PICTURES
from models.training.bases import Base

# The paper compares fc7 by the Euclidean distance.
_METRIC = "l2"
_UNKNOWN_LICENCE = "NOASSERTION"
# Means of ImageNet's channels, blue first, as Caffe's own examples have them.
_MEAN = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class CaffeFiles:
    """What goes with a caffemodel.

    Attributes:
        prototxt: The network's description, in any of Caffe's formats.
        feature: Layer or blob that is the feature.
        mean: Three numbers with commas between, a `.npy` or a `.binaryproto` file; None for 0.
    """

    prototxt: Path | None
    feature: str
    mean: str | None


def open_caffemodel(weights: Path, files: CaffeFiles) -> Base:
    """Make a base of a caffemodel; its BatchNorm is not folded, so that it can learn further.

    Raises:
        TrainingError: There is no prototxt.
        NetworkError: The prototxt is wrong, or has no such feature.
        WeightsError: The weights or the mean are damaged or do not fit.
        BundleError: The mean image is of another size than the pictures.
    """
    if files.prototxt is None:
        raise TrainingError(f"{weights} says nothing of its layers; give its --prototxt too")
    mean = None if files.mean is None else read_any_mean(files.mean)
    return _base(str(weights), files.prototxt, weights, files.feature, mean)


def open_topology(name: str, *, seed: int) -> Base:
    """Make a base of one of `models.caffe.topologies.TOPOLOGIES`, with random weights."""
    # The code layer that these come with is left away.
    bits = topologies.MIN_BITS
    with tempfile.TemporaryDirectory() as folder:
        prototxt, weights = Path(folder) / "deploy.prototxt", Path(folder) / "weights.caffemodel"
        prototxt.write_text(topologies.deploy(name, bits=bits), encoding="utf-8")
        weights.write_bytes(topologies.random_weights(name, bits=bits, seed=seed))
        base = _base(name, prototxt, weights, topologies.FEATURE, _MEAN)
    return dataclasses.replace(base, learned=False)


def _base(name: str, prototxt: Path, weights: Path, feature: str, mean: Mean | None) -> Base:
    graph = to_onnx(prototxt, weights, feature=feature, latent=None, optimise=False)
    known = CAFFE_PICTURES if mean is None else dataclasses.replace(CAFFE_PICTURES, mean=mean)
    input_px = graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    return Base(name, graph, known.preprocess(input_px), _METRIC, _UNKNOWN_LICENCE)
