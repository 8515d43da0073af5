"""Trains a bundle on labelled images, from a base to a whole directory."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, load_bundle
from models.centres import learn_centres
from models.errors import BundleError, TrainingError
from models.graphs.latent import LATENT
from models.graphs.optimise import optimise
from models.labelled.corpus import Corpus, read_corpus
from models.labelled.skipped import Skipped
from models.network_bundle import write_network_bundle
from models.training.bases import Base
from models.training.code_weight import Choice, choose_code_weight
from models.training.log import described, versions, write_log
from models.training.options import Options, check, identity
from models.training.stages import Result, Stage
from models.training.work import Work

# Codes longer than this are filed under centre codes by the store: docs/store.md.
_LONGEST_WITHOUT_CENTRES = 24
_MOST_CENTRES, _CODES_PER_CENTRE, _CENTRE_ROUNDS = 2048, 16, 25
_MOST_CODES = 100_000


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    Attributes:
        bundle: The bundle, in its place.
        images: How many images it learned from.
        held_out: How many images decided which epoch is best.
        skipped: The images that could not be read.
        epochs: How many epochs there were.
        accuracy: Share of the held-out images whose class is read off their code.
    """

    bundle: Bundle
    images: int
    held_out: int
    skipped: tuple[Skipped, ...]
    epochs: int
    accuracy: float


def train(base: Base, options: Options, *, out: Path, features: Path, threads: int) -> Trained:
    """Train a bundle, or go on where an earlier call was cut off.

    Args:
        base: What to start from.
        options: How.
        out: The bundle's directory, which must not exist; `OUT.unfinished` beside it is the work
            folder until the bundle is whole.
        features: Folder that keeps features between runs.
        threads: Threads of the network that makes them.

    Raises:
        OptionError: An option does not fit.
        TrainingError: PyTorch is missing, or the loss is not a number.
        CorpusError: The images cannot be learned from.
        CacheError: Features cannot be kept, for example because the disk is full.
        BundleError: The bundle cannot be written.
    """
    device = check(base, options)
    corpus = read_corpus(options.data)
    validation = _validation(options, corpus)
    with Work(out, run=identity(base, options, corpus, validation)) as work:
        begin = time.monotonic()
        stage = Stage(base, options, corpus, validation, work.path, features, threads)
        result = stage.finetuned(device) if options.finetune else stage.frozen()
        made, choice = _write(result, base, options, work.path / "bundle")
        log = _log(result, base, options) | {"device": device, "resumed": work.resumed}
        log["code_weight"] = choice.description if choice else {"weight": options.code_weight}
        seconds = round(time.monotonic() - begin, 1)
        write_log(made, log | {"seconds_since_resumed": seconds})
        work.publish(made)
    return Trained(
        bundle=load_bundle(out),
        images=len(result.corpus) - (0 if options.validation else result.held_out),
        held_out=result.held_out,
        skipped=result.skipped,
        epochs=len(result.history),
        accuracy=result.accuracy,
    )


def _validation(options: Options, corpus: Corpus) -> Corpus | None:
    if options.validation is None:
        return None
    validation = read_corpus(options.validation)
    if validation.classes != corpus.classes:
        names = ", ".join(sorted({*validation.classes} ^ {*corpus.classes})[:10])
        raise TrainingError(
            f"{validation.root} and {corpus.root} differ in the classes {names}; give images of "
            "the same classes"
        )
    return validation


def _write(result: Result, base: Base, options: Options, path: Path) -> tuple[Path, Choice | None]:
    """Write the bundle, and once more with what is learned by looking through it."""
    centres, choice, weight = None, None, options.code_weight
    seed = result.recipe["seed"]
    long = options.bits > _LONGEST_WITHOUT_CENTRES
    _write_network(result, base, options, path, weight=weight or 0.0)
    if long or weight is None:
        seen = result.look(load_bundle(path))
        if long:
            centres = _centres(seen.known.codes, bits=options.bits, seed=seed)
        if weight is None:
            choice = choose_code_weight(seen, bits=options.bits, metric=base.metric, seed=seed)
            weight = choice.weight
        _write_network(result, base, options, path, weight=weight, centres=centres)
    return path, choice


def _write_network(
    result: Result,
    base: Base,
    options: Options,
    path: Path,
    *,
    weight: float,
    centres: NDArray[np.uint8] | None = None,
) -> None:
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir()
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror}; free some space") from error
    write_network_bundle(
        path,
        optimise(result.graph),
        name=options.name,
        licence=options.licence or base.licence,
        preprocess=base.preprocess,
        metric=base.metric,
        feature=base.feature_name,
        latent=LATENT,
        code_weight=weight,
        centres=centres,
    )


def _centres(codes: NDArray[np.uint8], *, bits: int, seed: int) -> NDArray[np.uint8]:
    if len(codes) > _MOST_CODES:
        rng = np.random.default_rng(seed)
        codes = codes[rng.choice(len(codes), _MOST_CODES, replace=False)]
    distinct = len(np.unique(codes, axis=0))
    count = max(1, min(_MOST_CENTRES, len(codes) // _CODES_PER_CENTRE, distinct))
    return learn_centres(codes, count, bits=bits, rounds=_CENTRE_ROUNDS, seed=seed)


def _log(result: Result, base: Base, options: Options) -> dict[str, Any]:
    return {
        "base": base.name,
        "base_licence": base.licence,
        "bits": options.bits,
        "finetune": options.finetune,
        "recipe": result.recipe,
        "data": described(result.corpus, result.skipped),
        "validation": options.validation and str(options.validation),
        "held_out": result.held_out,
        "accuracy": result.accuracy,
        "history": list(result.history),
        "versions": versions(),
    }
