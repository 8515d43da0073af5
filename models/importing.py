"""Makes a bundle of a network that somebody brings: Caffe files or ONNX."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from models.bundle import Bundle, CaffeFiles, caffe_digest, check_name, load_bundle
from models.bundle_writer import write_bundle
from models.caffe.deployed import deployed
from models.caffe.to_onnx import to_onnx
from models.catalogue import DEFAULT_BUNDLES
from models.engines import open_engine
from models.errors import (
    BundleError,
    EngineError,
    NetworkError,
    OptionError,
    WeightsError,
    first_line,
)
from models.graphs.embedding import embedding_of, is_sigmoid, scale_input
from models.graphs.optimise import optimise
from models.network_bundle import width, write_network_bundle
from models.pictures import Pictures
from models.preprocess import Preprocess
from models.whole import whole_directory

# What the pictures of a trial are: few, and so that a batch differs from a single one.
_TRIED = 2
_ELSEWHERE = "choose another place with --out"


@dataclass(frozen=True)
class Named:
    """What an imported bundle is called, and what is said of it.

    Attributes:
        name: The bundle's name.
        out: Its directory, which must not exist yet.
        metric: How features are compared, one of `models.bundle.METRICS`.
        licence: SPDX expression of the weights' licence.
    """

    name: str
    out: Path
    metric: str
    licence: str = "NOASSERTION"


def import_caffe(
    prototxt: Path,
    weights: Path,
    *,
    named: Named,
    feature: str,
    code: str | None,
    pictures: Pictures,
) -> Bundle:
    """Make a bundle of Caffe files; their ONNX form is made by `ensure_bundle`.

    Args:
        prototxt: The network's description, in any of Caffe's formats.
        weights: Its caffemodel.
        named: The bundle's name and place.
        feature: Name of the layer or blob of features.
        code: Name of the layer or blob of the code; None for a network without one, on which
            `train` learns it.
        pictures: How it wants its pictures.

    Raises:
        OptionError: The name or the size of pictures cannot be used, or the network has no such
            feature or code.
        BundleError: The place cannot be used, or the mean image does not fit.
        NetworkError: The prototxt is wrong, or not of a network that can be used.
        WeightsError: The weights are damaged or do not fit the prototxt.
    """
    _check(named)
    # All that can be wrong with the files comes to light here, before anything is written.
    model = to_onnx(prototxt, weights, feature=feature, latent=code)
    blobs = [output.name for output in model.graph.output]
    feature, latent = blobs[0], blobs[-1] if code is not None else ""
    contents = (deployed(prototxt, blobs=set(blobs)), _contents(weights))
    preprocess = pictures.with_one_scale().preprocess(_side(model))
    if pictures.crop_px not in (None, preprocess.input_px):
        raise OptionError(
            f"the network takes {preprocess.input_px} pixels, not {pictures.crop_px}; change its "
            "prototxt, or leave --crop out"
        )
    with whole_directory(named.out, remedy=_ELSEWHERE) as path:
        bundle = _of_caffe(path, model, named, feature, latent, preprocess, contents)
        write_bundle(bundle, None, caffe=contents)
    return load_bundle(named.out)


def _of_caffe(
    path: Path,
    model: onnx.ModelProto,
    named: Named,
    feature: str,
    latent: str,
    preprocess: Preprocess,
    contents: tuple[bytes, bytes],
) -> Bundle:
    """Describe a bundle whose original form is Caffe's; `model` is what it converts to."""
    files = CaffeFiles.inside(
        path,
        input_name=model.graph.input[0].name,
        feature_name=feature,
        latent_name=latent,
    )
    return Bundle(
        path=path,
        name=named.name,
        licence=named.licence,
        bits=width(model, latent) if latent else 0,
        dims=width(model, feature),
        metric=named.metric,
        preprocess=preprocess,
        input_name=files.input_name,
        feature_name=feature,
        latent_name=latent,
        code_threshold=0.5,
        sha256=caffe_digest(*(hashlib.sha256(one).hexdigest() for one in contents)),
        source="caffe",
        caffe=files,
    )


def import_onnx(
    file: Path,
    *,
    named: Named,
    input_name: str | None,
    feature: str,
    code: str | None,
    pictures: Pictures,
) -> Bundle:
    """Make a bundle of an ONNX network.

    Args:
        file: The network; its weights are inside.
        named: The bundle's name and place.
        input_name: Its input of pictures, (N, 3, side, side); None where it has one input only.
        feature: Name of any value in it that is one vector an image.
        code: Likewise what its code's sigmoid gives; None for a network without one, on which
            `train` learns it.
        pictures: How it wants its pictures.

    Raises:
        OptionError: The name or the size of pictures cannot be used, or the network has no such
            feature or code.
        BundleError: The place cannot be used, or the mean image does not fit.
        NetworkError: The file is not a network, or not one that can be used.
    """
    _check(named)
    with _understood(file):
        _import_onnx(file, named, input_name, feature, code, pictures)
    return load_bundle(named.out)


def _import_onnx(
    file: Path,
    named: Named,
    input_name: str | None,
    feature: str,
    code: str | None,
    pictures: Pictures,
) -> None:
    ends = [feature] if code is None else [feature, code]
    model = embedding_of(
        _read_onnx(file), input_name=input_name, side_px=pictures.crop_px, outputs=ends
    )
    outputs = [output.name for output in model.graph.output]
    if code is not None and not is_sigmoid(model, outputs[-1]):
        raise NetworkError(
            f"{file}: the value {code!r} is to give the code, and is not what a Sigmoid gives; "
            "name the one that is with --code, or leave --code out and let `lookalike train` "
            "learn a code"
        )
    if pictures.deviation is not None:
        model = scale_input(model, [1 / one for one in pictures.deviation])
    preprocess = pictures.preprocess(_side(model))
    with whole_directory(named.out, remedy=_ELSEWHERE) as path:
        write_network_bundle(
            path,
            optimise(model),
            name=named.name,
            licence=named.licence,
            preprocess=preprocess,
            metric=named.metric,
            feature=outputs[0],
            latent=outputs[-1] if code is not None else None,
        )
        _try_out(load_bundle(path))


@contextlib.contextmanager
def _understood(file: Path) -> Iterator[None]:
    """Translate what damaged fields make of the code that takes them for whole."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{file} is damaged, or has fields that lookalike does not know "
            f"({type(error).__name__}: {first_line(error)}); get it again or export it anew"
        ) from error


def _check(named: Named) -> None:
    try:
        check_name(named.name)
    except ValueError as error:
        raise OptionError(f"the name {error}") from error
    if named.name in DEFAULT_BUNDLES:
        raise OptionError(
            f"{named.name} is a bundle that comes with lookalike; choose another name"
        )
    if named.out.exists():
        raise BundleError(f"{named.out} is there already; delete it, or choose another place")


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error


def _read_onnx(path: Path) -> onnx.ModelProto:
    try:
        # Told which, or it chooses another parser by the file's ending.
        model = onnx.load(path, format="protobuf")
        onnx.checker.check_model(model)
    except OSError as error:
        raise NetworkError(f"cannot read {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise NetworkError(
            f"{path} is not an ONNX network, or is cut off; export it again, or give Caffe files "
            "with --prototxt and --weights"
        ) from error
    except onnx.checker.ValidationError as error:
        raise NetworkError(
            f"{path} is not an ONNX network that can be used ({first_line(error)}); export it "
            "again"
        ) from error
    return model


def _side(model: onnx.ModelProto) -> int:
    height, width_px = (
        dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]
    )
    if height != width_px:
        raise NetworkError(
            f"the network takes pictures of {width_px} x {height} pixels, and lookalike gives "
            "squares; import a network with a square input"
        )
    return int(height)


def _try_out(bundle: Bundle) -> None:
    """Run two random pictures, together and each alone."""
    side = bundle.preprocess.input_px
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (_TRIED, side, side, 3), np.uint8)
    try:
        with open_engine(bundle, threads=1) as engine:
            together = engine.embed(pixels).features
            alone = np.concatenate([engine.embed(one[None]).features for one in pixels])
    except EngineError as error:
        raise NetworkError(
            f"the network does not run on {_TRIED} pictures at once: {error}; export it with a "
            "batch of any size"
        ) from error
    if not np.allclose(together, alone, rtol=1e-3, atol=1e-4):
        raise NetworkError(
            "an image's features depend on the images beside it; export the network for "
            "inference, with a batch of any size"
        )
