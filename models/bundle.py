"""A model bundle: a directory that holds a network and says how to use it.

`bundle.toml` describes; `network.onnx`, or `deploy.prototxt` with `weights.caffemodel`, or both
forms compute; `centres.npy`, where there is one, holds the centre codes that a store may file
codes under, and `mean.npy` a mean image. docs/models.md lists every field.
"""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError
from models.fields import Fields
from models.preprocess import CHANNEL_ORDERS, RESAMPLES, RESIZE_RULES, Preprocess

FORMAT = 1
DESCRIPTION, NETWORK, CENTRES = "bundle.toml", "network.onnx", "centres.npy"
PROTOTXT, CAFFEMODEL, MEAN = "deploy.prototxt", "weights.caffemodel", "mean.npy"
METRICS = ("cosine", "l2")
SOURCES = ("onnx", "caffe")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class CaffeFiles:
    """A bundle's network in Caffe's form.

    Attributes:
        prototxt: The network's layers.
        weights: Their weights, a caffemodel.
        input_name: The input blob, (N, 3, input_px, input_px).
        feature_name: The blob of features, D values an image.
        latent_name: The blob of latent values, B values an image; empty where there is no code.
    """

    prototxt: Path
    weights: Path
    input_name: str
    feature_name: str
    latent_name: str

    @classmethod
    def inside(
        cls, directory: Path, *, input_name: str, feature_name: str, latent_name: str
    ) -> "CaffeFiles":
        """Return the Caffe form of the bundle in a directory."""
        prototxt, weights = directory / PROTOTXT, directory / CAFFEMODEL
        return cls(prototxt, weights, input_name, feature_name, latent_name)


@dataclass(frozen=True)
class Bundle:
    """What a bundle says about itself.

    Attributes:
        path: Its directory.
        name: Lower-case name, fit for file names.
        licence: SPDX expression of the weights' licence.
        bits: B, length of a code; 0 in a bundle that has no code layer yet.
        dims: D, length of a feature.
        metric: How features are compared: `cosine` or `l2`.
        preprocess: How pictures become the network's input.
        input_name: The network's input, (N, 3, input_px, input_px) float32.
        feature_name: The network's output of features, (N, D) float32.
        latent_name: The network's output of latent values, (N, B) float32; empty without code.
        code_threshold: A bit is set where the latent value is above this.
        sha256: Digest of the network's original form in hex: of `network.onnx`, or
            `caffe_digest` of the Caffe files.
        source: The form that is the original, one of `SOURCES`.
        caffe: The network's Caffe form, or None.
        code_weight: What the share of differing code bits adds to the distance of two features
            when candidates are ranked. Not part of the id: codes and features stay the same.
        centres: Centre codes, shape=(M, ceil(B/8)), dtype=uint8, bits in the order of
            `numpy.packbits`, or None.
        converted: Where the ONNX form of a network that is Caffe's was put, or None.
    """

    path: Path
    name: str
    licence: str
    bits: int
    dims: int
    metric: str
    preprocess: Preprocess
    input_name: str
    feature_name: str
    latent_name: str
    code_threshold: float
    sha256: str
    source: str = "onnx"
    caffe: CaffeFiles | None = None
    code_weight: float = 0.0
    converted: Path | None = field(default=None, compare=False)
    centres: NDArray[np.uint8] | None = field(default=None, compare=False)

    @property
    def network(self) -> Path:
        """The ONNX form's file.

        Raises:
            BundleError: The bundle holds Caffe files only, and nobody has converted them.
        """
        if self.source == "caffe" and self.converted is None:
            raise BundleError(
                f"{self.path} holds Caffe files only; ensure_bundle converts them, load_bundle "
                "does not"
            )
        return self.converted or self.path / NETWORK

    @property
    def id(self) -> str:
        """Name and fingerprint: equal only where features and codes may be compared."""
        digest = hashlib.sha256(json.dumps(self._meaning(), sort_keys=True).encode())
        if self.centres is not None:
            digest.update(self.centres.tobytes())
        return f"{self.name}@{digest.hexdigest()[:12]}"

    def _meaning(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "dims": self.dims,
            "metric": self.metric,
            "preprocess": self.preprocess.description,
            "names": [self.input_name, self.feature_name, self.latent_name],
            "code_threshold": self.code_threshold,
            "network": self.sha256,
        }


def caffe_digest(prototxt_sha256: str, weights_sha256: str) -> str:
    """Return the digest of a network whose original form is Caffe's, from those of its files."""
    return hashlib.sha256(f"{prototxt_sha256} {weights_sha256}".encode()).hexdigest()


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and check that its files are the ones it describes.

    Args:
        path: The bundle's directory.

    Returns:
        The bundle; `open_engine` opens its network.

    Raises:
        BundleError: A file is missing or does not match its sha256, or a field is missing or
            wrong; the message names it.
    """
    fields = Fields(path / DESCRIPTION, _read_toml(path / DESCRIPTION))
    if (version := fields.take("format", int)) != FORMAT:
        raise fields.error("format", f"is {version}, expected {FORMAT}; update lookalike")
    network, code = fields.table("network"), fields.table("code")
    bits = code.size("bits", least=0)
    bundle = Bundle(
        path=path,
        name=_name(fields),
        licence=fields.take("licence", str),
        bits=bits,
        dims=network.size("dims"),
        metric=network.choice("metric", METRICS),
        preprocess=_preprocess(path / MEAN, fields.table("preprocess")),
        input_name=network.take("input", str),
        feature_name=network.take("feature", str),
        latent_name=network.take("latent", str) if bits else "",
        code_threshold=code.number("threshold"),
        sha256=network.take("sha256", str),
        source=network.choice("source", SOURCES) if "source" in network else SOURCES[0],
        caffe=_caffe(path, fields, bits),
        code_weight=_code_weight(code),
        centres=_centres(path / CENTRES, code),
    )
    _verify_original(bundle, fields)
    return bundle


def check_name(name: str) -> None:
    """Raise `ValueError` unless a name is fit for a bundle."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"is {name!r}; use lower-case letters, digits and . _ -, at most 64")


def _verify_original(bundle: Bundle, fields: Fields) -> None:
    if bundle.source == "onnx":
        _verify(bundle.network, bundle.sha256)
    elif bundle.caffe is None:
        raise fields.error("caffe", "is missing, and network.source says caffe; add the table")
    else:
        caffe = fields.table("caffe")
        digests = (caffe.take("prototxt_sha256", str), caffe.take("weights_sha256", str))
        if bundle.sha256 != caffe_digest(*digests):
            raise fields.error("network.sha256", "is not that of the two digests under [caffe]")


def _caffe(path: Path, fields: Fields, bits: int) -> CaffeFiles | None:
    if "caffe" not in fields:
        return None
    caffe = fields.table("caffe")
    files = CaffeFiles.inside(
        path,
        input_name=caffe.take("input", str),
        feature_name=caffe.take("feature", str),
        latent_name=caffe.take("latent", str) if bits else "",
    )
    _verify(files.prototxt, caffe.take("prototxt_sha256", str))
    _verify(files.weights, caffe.take("weights_sha256", str))
    return files


def _code_weight(code: Fields) -> float:
    weight = code.number("weight") if "weight" in code else 0.0
    if weight < 0:
        raise code.error("weight", f"is {weight}, expected 0 or more")
    return weight


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"cannot read {path}: {error.strerror}; a bundle is a directory with {DESCRIPTION} "
            "and a network in it"
        ) from error
    except ValueError as error:
        raise BundleError(f"{path} is not valid TOML: {error}") from error


def _name(fields: Fields) -> str:
    name = fields.take("name", str)
    try:
        check_name(name)
    except ValueError as error:
        raise fields.error("name", str(error)) from error
    return name


def _preprocess(path: Path, fields: Fields) -> Preprocess:
    input_px, resize_px = fields.size("input_px"), fields.size("resize_px")
    if resize_px < input_px:
        raise fields.error("resize_px", f"is {resize_px}, less than input_px ({input_px})")
    red, green, blue = fields.numbers("mean", 3)
    return Preprocess(
        input_px=input_px,
        resize_px=resize_px,
        resize_rule=fields.choice("resize_rule", RESIZE_RULES),
        resample=fields.choice("resample", RESAMPLES),
        channel_order=fields.choice("channel_order", CHANNEL_ORDERS),
        mean=(red, green, blue),
        scale=fields.number("scale"),
        mean_sha256=fields.take("mean_sha256", str) if "mean_sha256" in fields else None,
        mean_image=_mean_image(path, fields, input_px),
    )


def _mean_image(path: Path, fields: Fields, input_px: int) -> NDArray[np.float32] | None:
    if "mean_sha256" not in fields:
        return None
    _verify(path, fields.take("mean_sha256", str))
    image = _array(path)
    if image.dtype != np.float32 or image.shape != (3, input_px, input_px):
        raise BundleError(
            f"{path} holds {image.dtype} of shape {image.shape}, expected float32 of shape "
            f"(3, {input_px}, {input_px})"
        )
    return image


def _centres(path: Path, code: Fields) -> NDArray[np.uint8] | None:
    if "centres_sha256" not in code:
        return None
    _verify(path, code.take("centres_sha256", str))
    centres = _array(path)
    width = -(-code.size("bits") // 8)
    if centres.dtype != np.uint8 or centres.ndim != 2 or centres.shape[1] != width:
        raise BundleError(
            f"{path} holds {centres.dtype} of shape {centres.shape}, expected uint8 of shape "
            f"(M, {width})"
        )
    return centres


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is not a NumPy array: {error}") from error
    return array


def _verify(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(
            f"cannot read {path}: {error.strerror}; the bundle is incomplete, get it again"
        ) from error
    if found != sha256:
        raise BundleError(
            f"{path} is damaged or was replaced: its sha256 is {found}, {DESCRIPTION} says "
            f"{sha256}; get the bundle again"
        )
