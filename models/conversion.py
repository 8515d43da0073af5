"""Gives a bundle of Caffe files the ONNX form that ONNX Runtime needs, once on a machine."""

import dataclasses
import hashlib
from pathlib import Path

from models.bundle import NETWORK, Bundle, CaffeFiles
from models.caffe.to_onnx import to_onnx
from models.errors import BundleError
from models.whole import whole_directory

# Raised whenever the same Caffe files would give another network.
_VERSION = 1
_DIGEST = "network.sha256"


def converted(bundle: Bundle, *, cache_dir: Path) -> Bundle:
    """Return a bundle whose ONNX form is there, converting its Caffe files if nobody has.

    Args:
        bundle: As `load_bundle` returns it; one whose source is ONNX is returned as it is.
        cache_dir: Where what was converted is kept; made if it does not exist.

    Raises:
        BundleError: The cache cannot be written, or its file is damaged.
        NetworkError: The network has a layer that cannot be converted.
        WeightsError: The weights do not fit the network.
    """
    if bundle.source != "caffe" or bundle.caffe is None:
        return bundle
    target = cache_dir / f"{bundle.name}-{_key(bundle, bundle.caffe)}"
    if not target.exists():
        _convert(bundle.caffe, target)
    _check(target)
    return dataclasses.replace(bundle, converted=target / NETWORK)


def _key(bundle: Bundle, files: CaffeFiles) -> str:
    """Digest of all that the result depends on."""
    parts = (_VERSION, bundle.sha256, files.feature_name, files.latent_name)
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:12]


def _convert(files: CaffeFiles, target: Path) -> None:
    latent = files.latent_name or None
    model = to_onnx(files.prototxt, files.weights, feature=files.feature_name, latent=latent)
    network = model.SerializeToString()
    with whole_directory(target, remedy="choose another cache directory") as made:
        (made / NETWORK).write_bytes(network)
        (made / _DIGEST).write_text(hashlib.sha256(network).hexdigest())


def _check(target: Path) -> None:
    try:
        with (target / NETWORK).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        expected = (target / _DIGEST).read_text()
    except OSError as error:
        raise BundleError(f"cannot read {target}: {error.strerror}; {_again(target)}") from error
    if found != expected:
        raise BundleError(f"{target / NETWORK} is damaged; {_again(target)}")


def _again(target: Path) -> str:
    return f"delete {target} and the network is converted anew"
