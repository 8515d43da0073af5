"""Writes a bundle of any ONNX network, with its Caffe form where it has one."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from models.bundle import Bundle, CaffeFiles
from models.bundle_writer import write_bundle
from models.caffe.from_onnx import CaffeForm, from_onnx
from models.errors import BundleError, NetworkError
from models.preprocess import Preprocess

_log = logging.getLogger(__name__)


def write_network_bundle(
    path: Path,
    model: onnx.ModelProto,
    *,
    name: str,
    licence: str,
    preprocess: Preprocess,
    metric: str,
    feature: str,
    latent: str | None,
    code_threshold: float = 0.5,
    code_weight: float = 0.0,
    centres: NDArray[np.uint8] | None = None,
) -> None:
    """Write a bundle of an ONNX network.

    Args:
        path: The bundle's directory, which must exist.
        model: One input (N, 3, side, side); outputs of a feature (N, D) and a code (N, B).
        name: The bundle's name.
        licence: SPDX expression of the weights' licence.
        preprocess: How pictures become the input.
        metric: How features are compared, one of `models.bundle.METRICS`.
        feature: Name of the output of features.
        latent: Name of the output of latent values; None where there is no code layer yet.
        code_threshold: A bit is set where the latent value is above this.
        code_weight: What the share of differing code bits adds to a distance.
        centres: Centre codes, shape=(M, ceil(B/8)), dtype=uint8, or None.

    Raises:
        BundleError: A file cannot be written, or the network has no such outputs.
    """
    network = model.SerializeToString()
    form = _caffe_form(model, name)
    bundle = Bundle(
        path=path,
        name=name,
        licence=licence,
        bits=width(model, latent) if latent else 0,
        dims=width(model, feature),
        metric=metric,
        preprocess=preprocess,
        input_name=model.graph.input[0].name,
        feature_name=feature,
        latent_name=latent or "",
        code_threshold=code_threshold,
        sha256=hashlib.sha256(network).hexdigest(),
        caffe=None if form is None else _files(path, model, form, feature, latent),
        code_weight=code_weight,
        centres=centres,
    )
    caffe = None if form is None else (form.prototxt, form.weights)
    write_bundle(bundle, network, caffe=caffe)


def width(model: onnx.ModelProto, output: str) -> int:
    """Return how many values an output (N, D) has for an image.

    Raises:
        BundleError: There is no such output, or it is of another shape.
    """
    found = {one.name: one for one in model.graph.output}
    if output not in found:
        raise BundleError(f"the network has no output {output!r}; choose among {', '.join(found)}")
    dims = found[output].type.tensor_type.shape.dim
    if len(dims) != 2 or dims[1].dim_value < 1:
        shape = [dim.dim_param or dim.dim_value for dim in dims]
        raise BundleError(f"the output {output!r} has shape {shape}, expected (N, values)")
    return int(dims[1].dim_value)


def _caffe_form(model: onnx.ModelProto, name: str) -> CaffeForm | None:
    try:
        return from_onnx(model)
    except NetworkError as error:
        _log.info("Bundle %s has no Caffe form: %s.", name, error)
        return None


def _files(
    path: Path, model: onnx.ModelProto, form: CaffeForm, feature: str, latent: str | None
) -> CaffeFiles:
    return CaffeFiles.inside(
        path,
        input_name=form.blobs[model.graph.input[0].name],
        feature_name=form.blobs[feature],
        latent_name=form.blobs[latent] if latent else "",
    )
