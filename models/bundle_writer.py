"""Writes the files of a bundle."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import CENTRES, DESCRIPTION, FORMAT, NETWORK, Bundle
from models.errors import BundleError


def write_bundle(bundle: Bundle, network: bytes) -> None:
    """Write a bundle's files into its directory, which must exist.

    Args:
        bundle: What to write; `bundle.sha256` must be the digest of `network`.
        network: Contents of `network.onnx`.

    Raises:
        BundleError: A file cannot be written, for example because the disk is full.
    """
    files = {NETWORK: network}
    code: dict[str, Any] = {"bits": bundle.bits, "threshold": bundle.code_threshold}
    if bundle.centres is not None:
        buffer = io.BytesIO()
        np.save(buffer, bundle.centres)
        files[CENTRES] = buffer.getvalue()
        code["centres_sha256"] = hashlib.sha256(files[CENTRES]).hexdigest()
    files[DESCRIPTION] = _description(bundle, code).encode()
    for name, content in files.items():
        _write_durably(bundle.path / name, content)


def _description(bundle: Bundle, code: dict[str, Any]) -> str:
    top = {"format": FORMAT, "name": bundle.name, "licence": bundle.licence}
    network = {
        "sha256": bundle.sha256,
        "input": bundle.input_name,
        "feature": bundle.feature_name,
        "latent": bundle.latent_name,
        "dims": bundle.dims,
        "metric": bundle.metric,
    }
    tables = {"network": network, "preprocess": vars(bundle.preprocess), "code": code}
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
