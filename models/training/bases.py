"""What training starts from: a network whose features are learned on, without a code layer."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from models import lite
from models.bundle import Bundle, load_bundle
from models.bundle_writer import write_bundle
from models.catalogue import WEIGHTS, preprocess
from models.errors import BundleError, OptionError
from models.graphs.latent import features_of
from models.graphs.optimise import optimise
from models.preprocess import Preprocess

PRETRAINED = {f"{name}-imagenet": name for name in WEIGHTS}
"""Bases that come with lookalike -> keys of `models.catalogue.WEIGHTS`."""


@dataclass(frozen=True)
class Base:
    """A network to start from.

    Attributes:
        name: What the user called it.
        graph: Input (N, 3, input_px, input_px) float32, one output, the feature (N, D).
        preprocess: How pictures become its input.
        metric: How its features are compared.
        licence: SPDX expression of its weights' licence.
        bundle: The bundle that it is of, or None; `with_bundle` makes one.
        learned: Whether it has learned anything yet: on random weights only `--finetune` helps.
    """

    name: str
    graph: onnx.ModelProto
    preprocess: Preprocess
    metric: str
    licence: str
    bundle: Bundle | None = None
    learned: bool = True

    @property
    def dims(self) -> int:
        """D, length of a feature."""
        return int(self.graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value)

    @property
    def input_name(self) -> str:
        """Name of the graph's input."""
        return str(self.graph.graph.input[0].name)

    @property
    def feature_name(self) -> str:
        """Name of the graph's output."""
        return str(self.graph.graph.output[0].name)

    def with_bundle(self, folder: Path) -> Bundle:
        """Return a bundle that gives the features, written into a folder if there is none yet.

        Raises:
            BundleError: It cannot be written.
        """
        if self.bundle is not None:
            return self.bundle
        network = optimise(self.graph).SerializeToString()
        folder.mkdir(parents=True, exist_ok=True)
        write_bundle(self.described(folder, network), network)
        return load_bundle(folder)

    def described(self, folder: Path, network: bytes) -> Bundle:
        """Describe a bundle without codes of this base."""
        return Bundle(
            path=folder,
            name="base",
            licence=self.licence,
            bits=0,
            dims=self.dims,
            metric=self.metric,
            preprocess=self.preprocess,
            input_name=self.input_name,
            feature_name=self.feature_name,
            latent_name="",
            code_threshold=0.5,
            sha256=hashlib.sha256(network).hexdigest(),
        )


def open_base(name: str, *, input_px: int | None, find: Callable[[str], Bundle]) -> Base:
    """Find a base by its name.

    Args:
        name: One of `PRETRAINED`, or a bundle, whose latent layer is left away.
        input_px: Side of the network's input; None for the one that it was trained with. A
            network whose features are means over the picture leaves the choice.
        find: Loads a bundle by name or directory; it may be one without codes.

    Raises:
        OptionError: `input_px` does not fit.
        BundleError: There is no such base, or its bundle is damaged.
        WeightsError: The package with its weights is missing.
    """
    if name in PRETRAINED:
        return _pretrained(name, input_px)
    return _of_side(_of_bundle(name, find), input_px)


def _of_side(base: Base, input_px: int | None) -> Base:
    """Let a network take pictures of another side, where its features stay as many."""
    if input_px in (None, base.preprocess.input_px):
        return base
    if base.preprocess.mean_image is not None or not _is_free(base.graph):
        refuse_side(base, input_px)
    graph = onnx.ModelProto()
    graph.CopyFrom(base.graph)
    for axis in graph.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = input_px
    pictures = dataclasses.replace(base.preprocess, input_px=input_px, resize_px=input_px)
    return dataclasses.replace(base, graph=graph, preprocess=pictures, bundle=None)


def _is_free(graph: onnx.ModelProto) -> bool:
    """Tell whether every way to the features leads through a mean over the whole picture."""
    made_by = {name: node for node in graph.graph.node for name in node.output}
    node = made_by.get(graph.graph.output[0].name)
    while node is not None and node.op_type in ("Flatten", "Reshape", "Squeeze", "Identity"):
        node = made_by.get(node.input[0])
    return node is not None and node.op_type in ("GlobalAveragePool", "GlobalMaxPool")


def refuse_side(base: Base, input_px: int | None) -> None:
    """Raise `OptionError` where a network is asked to take pictures of another side."""
    if input_px not in (None, base.preprocess.input_px):
        raise OptionError(
            f"the network of {base.name} takes {base.preprocess.input_px} pixels; leave "
            f"--input-px out, or choose one of the bases {', '.join(PRETRAINED)}"
        )


def _pretrained(name: str, input_px: int | None) -> Base:
    variant, weights = lite.VARIANTS[PRETRAINED[name]], WEIGHTS[PRETRAINED[name]]
    pictures = preprocess(variant)
    if input_px is not None:
        # The whole picture: small ones have no margin to spare.
        pictures = dataclasses.replace(pictures, input_px=input_px, resize_px=input_px)
    graph = lite.build_backbone(variant, weights.read(), input_px=pictures.input_px)
    return Base(name, graph, pictures, "cosine", weights.licence)


def _of_bundle(name: str, find: Callable[[str], Bundle]) -> Base:
    try:
        bundle = find(name)
    except BundleError as error:
        if Path(name).is_dir():
            raise
        raise BundleError(f"{error}; other bases are {', '.join(PRETRAINED)}") from error
    graph = features_of(onnx.load(bundle.network), bundle.feature_name)
    return Base(name, graph, bundle.preprocess, bundle.metric, bundle.licence, bundle)
