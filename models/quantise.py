"""Makes a bundle whose network computes in 8-bit integers, for speed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from models.bundle import Bundle, check_name, load_bundle
from models.bundle_writer import write_bundle
from models.engine import Embedding
from models.engines import open_engine
from models.errors import BundleError, NetworkError
from models.integers import Array, to_integers
from models.progress import progress
from models.whole import whole_directory

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = "-int8"
"""What is put behind a bundle's name."""


def quantise_bundle(bundle: Bundle, pixels: NDArray[np.uint8], out: Path) -> Bundle:
    """Write the variant of a bundle whose network computes in 8-bit integers.

    The variant has a name and an id of its own, and no Caffe form.

    Args:
        bundle: Any bundle with an ONNX form.
        pixels: shape=(N, input_px, input_px, 3), dtype=uint8, N at least 1: images of the kind
            that will be searched. The range of each layer's values is taken from them.
        out: The new bundle's directory; nothing may be there yet.

    Returns:
        The variant.

    Raises:
        ValueError: `pixels` is empty, or has another shape or dtype.
        BundleError: There is something at `out`, it cannot be written, or the name gets too long.
        NetworkError: The network has no layer to quantise, has been quantised, or cannot be.
        EngineError: ONNX Runtime cannot run the result.
    """
    if not len(pixels):
        raise ValueError("expected at least 1 image, got 0")
    if out.exists():
        raise BundleError(f"{out} exists; delete it, or choose another place")
    name = _name(bundle)
    network = _network(bundle, pixels)
    with whole_directory(out, remedy="choose another place for the bundle") as made:
        variant = dataclasses.replace(
            bundle,
            path=made,
            name=name,
            sha256=hashlib.sha256(network).hexdigest(),
            source="onnx",
            caffe=None,
            converted=None,
        )
        write_bundle(variant, network)
        open_engine(variant, threads=1).close()
    return load_bundle(out)


@dataclass(frozen=True)
class Agreement:
    """How far a variant says the same as its original of the same images.

    Attributes:
        images: How many.
        cosine: Of the two features of an image, the mean.
        cosine_min: The same, the least.
        bits_differing: Bits of the two codes of an image, the mean; 0 without a code layer.
    """

    images: int
    cosine: float
    cosine_min: float
    bits_differing: float


def agreement(
    original: Bundle, variant: Bundle, pixels: NDArray[np.uint8], *, threads: int
) -> Agreement:
    """Run both networks on the same images.

    Args:
        original: A bundle.
        variant: Another with features and codes of the same length.
        pixels: shape=(N, input_px, input_px, 3), dtype=uint8, N at least 1.
        threads: How many threads the networks may use.

    Raises:
        EngineError: A network cannot be opened, or gave numbers that are not finite.
    """
    ours, theirs = (_embedded(bundle, pixels, threads) for bundle in (original, variant))
    cosines = np.einsum("nd,nd->n", _unit(ours.features), _unit(theirs.features))
    differing = np.bitwise_count(ours.codes ^ theirs.codes).sum(axis=1)
    return Agreement(
        images=len(pixels),
        cosine=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        bits_differing=float(differing.mean()),
    )


def _embedded(bundle: Bundle, pixels: NDArray[np.uint8], threads: int) -> Embedding:
    with open_engine(bundle, threads=threads) as engine:
        return engine.embed(pixels)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-12))
    return unit


def _name(bundle: Bundle) -> str:
    name = bundle.name + SUFFIX
    try:
        check_name(name)
    except ValueError as error:
        raise BundleError(f"the new bundle's name {error}; rename bundle {bundle.name}") from error
    return name


def _network(bundle: Bundle, pixels: NDArray[np.uint8]) -> bytes:
    try:
        model = to_integers(
            onnx.load(bundle.network),
            input_name=bundle.input_name,
            feature=bundle.feature_name,
            planes=partial(_planes, bundle, pixels),
        )
    except NetworkError as error:
        raise NetworkError(f"bundle {bundle.name} stays as it is: {error}") from error
    return bytes(model.SerializeToString())


def _planes(bundle: Bundle, pixels: NDArray[np.uint8], doing: str) -> Iterator[Array]:
    with progress(total=len(pixels), title=f"{doing} {bundle.name}") as bar:
        for picture in pixels:
            yield bundle.preprocess.normalise(picture[None])
            bar.update(1)
