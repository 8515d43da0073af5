"""What a training run is told, and what of it cannot work."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.bundle import check_name
from models.catalogue import DEFAULT_BUNDLES
from models.errors import OptionError, TrainingBlocked
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
        code_weight: `Bundle.code_weight`, at least 0; None chooses it on the held-out images.
    """

    data: Path
    validation: Path | None
    bits: int
    name: str
    licence: str | None
    finetune: bool
    device: str
    recipe: dict[str, Any]
    code_weight: float | None = None


def check(base: Base, options: Options) -> str:
    """Refuse what cannot work before anything is done; returns the device."""
    gpu = _has_gpu()
    try:
        check_name(options.name)
    except ValueError as error:
        raise OptionError(f"the name of the bundle {error}; give another --name") from error
    if options.name in DEFAULT_BUNDLES:
        raise OptionError(
            f"{options.name} is a bundle that comes with lookalike; give another --name"
        )
    if not MIN_BITS <= options.bits <= MAX_BITS:
        raise OptionError(
            f"codes have {MIN_BITS} to {MAX_BITS} bits, not {options.bits}; change --bits"
        )
    if options.code_weight is not None and not 0 <= options.code_weight < math.inf:
        raise OptionError(
            f"a code weight is a number of at least 0, not {options.code_weight}; change "
            "--code-weight"
        )
    if not (base.learned or options.finetune):
        raise OptionError(
            f"the weights of {base.name} are random, so its features say nothing; add --finetune"
        )
    if options.device == "cuda" and not gpu:
        raise TrainingBlocked("PyTorch finds no GPU; leave --device out to train on the CPU")
    return "cuda" if gpu and options.device != "cpu" else "cpu"


def _has_gpu() -> bool:
    try:
        import torch
    except Exception as error:  # a broken installation raises anything
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        reason = str(error).partition("\n")[0] or type(error).__name__
        why = "training needs PyTorch" if missing else f"PyTorch cannot be loaded ({reason})"
        raise TrainingBlocked(f"{why}; pip install 'lookalike[train]'") from error
    return bool(torch.cuda.is_available())


def identity(
    base: Base, options: Options, corpus: Corpus, validation: Corpus | None
) -> dict[str, Any]:
    """What must be the same for a run to be taken up again."""
    # Neither changes what is learned: where, and what searches make of it.
    free = ("device", "code_weight")
    told = {key: value for key, value in asdict(options).items() if key not in free}
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
