"""What a training run is told, and what of it cannot work."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.bundle import check_name
from models.errors import TrainingBlocked, TrainingError
from models.labelled.corpus import Corpus
from models.training.bases import Base

MIN_BITS, MAX_BITS = 8, 256
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Options:
    """What a training run is told.

    Attributes:
        data: Class folders or a CSV to learn from.
        validation: Class folders or a CSV of the same classes, which decide what epoch is best;
            None holds out a twentieth of `data`.
        bits: B, length of a code, 8 to 256.
        name: The bundle's name.
        licence: SPDX expression; None for that of the base.
        finetune: Whether the whole network learns, and not the code layer alone.
        device: `cpu`, `cuda`, or `auto` for whichever there is; only fine-tuning uses a GPU.
        recipe: Those settings of `FrozenRecipe` or `FinetuneRecipe` that are not to have their
            default.
    """

    data: Path
    validation: Path | None
    bits: int
    name: str
    licence: str | None
    finetune: bool
    device: str
    recipe: dict[str, Any]


def check(base: Base, options: Options) -> str:
    """Refuse what cannot work before anything is done; returns the device."""
    if importlib.util.find_spec("torch") is None:
        raise TrainingBlocked("training needs PyTorch; pip install 'lookalike[train]'")
    try:
        check_name(options.name)
    except ValueError as error:
        raise TrainingError(f"the name of the bundle {error}; give another --name") from error
    if not MIN_BITS <= options.bits <= MAX_BITS:
        raise TrainingError(
            f"codes have {MIN_BITS} to {MAX_BITS} bits, not {options.bits}; change --bits"
        )
    if not (base.learned or options.finetune):
        raise TrainingError(
            f"the weights of {base.name} are random, so its features say nothing; add --finetune"
        )
    import torch

    there = torch.cuda.is_available()
    if options.device == "cuda" and not there:
        raise TrainingBlocked("PyTorch finds no GPU; leave --device out to train on the CPU")
    return "cuda" if there and options.device != "cpu" else "cpu"


def identity(
    base: Base, options: Options, corpus: Corpus, validation: Corpus | None
) -> dict[str, Any]:
    """What must be the same for a run to be taken up again."""
    told = {key: value for key, value in asdict(options).items() if key != "device"}
    network = hashlib.sha256(base.graph.SerializeToString(deterministic=True)).hexdigest()
    return {
        **told,
        "data": str(options.data.resolve()),
        "validation": options.validation and str(options.validation.resolve()),
        "base": base.name,
        "network": network,
        "preprocess": base.preprocess.description,
        "images": [_digest(each) for each in (corpus, validation) if each is not None],
    }


def _digest(corpus: Corpus) -> str:
    digest = hashlib.sha256("\n".join(corpus.classes).encode())
    for path, label in zip(corpus.paths, corpus.labels.tolist(), strict=True):
        size = path.stat().st_size if path.is_file() else -1
        digest.update(f"\n{path} {size} {label}".encode(errors="surrogateescape"))
    return digest.hexdigest()
