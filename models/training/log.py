"""What a bundle says about how it was trained: `training.json`."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import BundleError
from models.labelled.corpus import Corpus
from models.labelled.skipped import Skipped

FILE = "training.json"
_PACKAGES = ("lookalike", "torch", "numpy", "onnx", "onnxruntime", "pillow")
_MOST_SKIPPED = 1000


def versions() -> dict[str, str]:
    """Return the versions of Python and of what trains."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def described(corpus: Corpus, skipped: tuple[Skipped, ...]) -> dict[str, Any]:
    """Describe labelled images: where they are, how many of each class, and what was skipped."""
    counts = np.bincount(corpus.labels, minlength=len(corpus.classes)).tolist()
    return {
        "root": str(corpus.root),
        "images": len(corpus),
        "classes": dict(zip(corpus.classes, counts, strict=True)),
        "skipped": len(skipped),
        "skipped_files": [
            {"path": str(each.path), "reason": each.reason} for each in skipped[:_MOST_SKIPPED]
        ],
    }


def write_log(folder: Path, log: dict[str, Any]) -> None:
    """Write `training.json`.

    Raises:
        BundleError: It cannot be written.
    """
    try:
        (folder / FILE).write_text(json.dumps(log, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BundleError(
            f"cannot write {folder / FILE}: {error.strerror}; free some space and start the same "
            "command again"
        ) from error
