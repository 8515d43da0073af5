"""Writes the files of a bundle."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import (
    CAFFEMODEL,
    CENTRES,
    DESCRIPTION,
    FORMAT,
    MEAN,
    NETWORK,
    PROTOTXT,
    Bundle,
    CaffeFiles,
)
from models.errors import BundleError

Table = dict[str, Any]


def write_bundle(
    bundle: Bundle, network: bytes | None, *, caffe: tuple[bytes, bytes] | None = None
) -> None:
    """Write a bundle's files into its directory, which must exist.

    Args:
        bundle: What to write; `bundle.sha256` must be the digest of the original form, and
            `bundle.caffe` must be there where `caffe` is.
        network: Contents of `network.onnx`; None where the bundle's source is Caffe's.
        caffe: Contents of `deploy.prototxt` and `weights.caffemodel`, or None.

    Raises:
        BundleError: A file cannot be written, for example because the disk is full.
    """
    files = {} if network is None else {NETWORK: network}
    tables = {"network": _network(bundle), "preprocess": bundle.preprocess.description}
    if bundle.caffe is not None and caffe is not None:
        files |= dict(zip((PROTOTXT, CAFFEMODEL), caffe, strict=True))
        tables["caffe"] = _caffe(bundle.caffe, *caffe)
    tables["code"] = _code(bundle)
    if bundle.preprocess.mean_image is not None:
        files[MEAN] = npy(bundle.preprocess.mean_image)
    if bundle.centres is not None:
        files[CENTRES] = npy(bundle.centres)
        tables["code"]["centres_sha256"] = _sha256(files[CENTRES])
    files[DESCRIPTION] = _description(bundle, tables).encode()
    for name, content in files.items():
        _write_durably(bundle.path / name, content)


def _network(bundle: Bundle) -> Table:
    return {
        "source": bundle.source,
        "sha256": bundle.sha256,
        "input": bundle.input_name,
        "feature": bundle.feature_name,
        "latent": bundle.latent_name,
        "dims": bundle.dims,
        "metric": bundle.metric,
    }


def _caffe(files: CaffeFiles, prototxt: bytes, weights: bytes) -> Table:
    return {
        "prototxt_sha256": _sha256(prototxt),
        "weights_sha256": _sha256(weights),
        "input": files.input_name,
        "feature": files.feature_name,
        "latent": files.latent_name,
    }


def _code(bundle: Bundle) -> Table:
    return {
        "bits": bundle.bits,
        "threshold": bundle.code_threshold,
        "weight": bundle.code_weight,
    }


def npy(array: NDArray[Any]) -> bytes:
    """Return the contents of an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _description(bundle: Bundle, tables: dict[str, Table]) -> str:
    top = {"format": FORMAT, "name": bundle.name, "licence": bundle.licence}
    parts = [_lines(top), *(f"\n[{name}]\n{_lines(table)}" for name, table in tables.items())]
    return "".join(parts)


def _lines(table: dict[str, Any]) -> str:
    # JSON's strings, numbers and lists of these are TOML's too.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def _write_durably(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            # A directory that was renamed into place must not hold empty files after a power cut.
            os.fsync(file.fileno())
    except OSError as error:
        raise BundleError(
            f"cannot write {path}: {error.strerror}; free some space or choose another place"
        ) from error
