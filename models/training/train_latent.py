"""Learns, measures and writes a latent layer for the default bundles.

`python -m models.training.train_latent --help` lists the options; models/latent/README.md has the
commands of the committed layers. Needs the extra `train`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import load_bundle
from models.catalogue import WEIGHTS, write_lite_bundle
from models.centres import learn_centres
from models.engine import Engine
from models.engines import open_engine
from models.labelled.corpus import Corpus, read_corpus, read_photos
from models.labelled.extraction import extract
from models.labelled.views import distorted
from models.lite import DIMS
from models.training.latent_figures import copies, retrieval
from models.training.latent_layer import Examples, Layer, Recipe, learn_latent

RECIPE = Recipe(
    epochs=8,
    batch=512,
    rate=3e-3,
    label_share=0.0,
    similarity=1.0,
    sharpness=8.0,
    stability=3.0,
    balance=0.3,
)
_ROUNDS = 25


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    with _backbone(options.backbone) as engine:
        labelled, photos = read_corpus(options.labelled), read_photos(options.photos)
        examples = _examples(engine, labelled, photos, options)
        recipe = replace(RECIPE, epochs=options.epochs, label_share=options.label_share)
        layer = learn_latent(examples, bits=options.bits, recipe=recipe, seed=options.seed)
        centres = _centres(layer.codes(examples.features), options)
        arrays: dict[str, Any] = {"weight": layer.weight, "bias": layer.bias, **centres}
        np.savez(options.out, **arrays)
        figures = _figures(engine, layer, labelled, options)
    json.dump(figures, sys.stdout, indent=2)


def _figures(
    engine: Engine, layer: Layer, labelled: Corpus, options: argparse.Namespace
) -> dict[str, Any]:
    validation, cache = read_corpus(options.validation), options.cache
    found = retrieval(layer, engine, labelled, validation, seed=options.seed, cache=cache)
    distances = {
        name: copies(layer, engine, read_photos(folder), cache=cache)
        for name, folder in (("photos", options.photos), ("unseen", options.unseen))
    }
    return {"retrieval": found, "copies": distances}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.training.train_latent", description=__doc__
    )
    add = parser.add_argument
    add("--labelled", type=Path, required=True, help="folder of class folders to learn from")
    add("--photos", type=Path, required=True, help="folder of photos CLASS_name.jpg, every class")
    add("--unlabelled", type=Path, help="class folders or CSV; the classes are not looked at")
    add("--validation", type=Path, required=True, help="folder of class folders to measure on")
    add("--unseen", type=Path, required=True, help="folder of photos to measure distorted copies")
    add("--backbone", choices=sorted(WEIGHTS), default="lite0", help="default: %(default)s")
    add("--bits", type=int, required=True, help="length of the codes")
    add("--centres", type=int, default=0, help="how many centre codes to learn (default: none)")
    add("--epochs", type=int, default=RECIPE.epochs, help="default: %(default)s")
    add(
        "--label-share",
        type=float,
        default=RECIPE.label_share,
        help="how much of a target is the label, 0 to 1 (default: %(default)s)",
    )
    add("--views", type=int, default=12, help="distorted copies of a photo (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--cache", type=Path, required=True, help="folder that keeps features between runs")
    add("--out", type=Path, required=True, help="file to write, NAME.npz")
    return parser


@contextmanager
def _backbone(name: str) -> Iterator[Engine]:
    """Open the network with an empty latent layer: only its features matter here."""
    with tempfile.TemporaryDirectory() as scratch:
        nothing = np.zeros((1, DIMS), np.float32)
        write_lite_bundle(
            Path(scratch), name=name, backbone=name, weight=nothing, bias=nothing[:, 0]
        )
        with open_engine(load_bundle(Path(scratch)), threads=2) as engine:
            yield engine


def _examples(
    engine: Engine, labelled: Corpus, photos: Corpus, options: argparse.Namespace
) -> Examples:
    """Small images with one distorted copy each; photos with many, paired in a ring."""
    weights = WEIGHTS[options.backbone].read()
    if len(photos.classes) != len(weights["_fc.bias"]):
        raise SystemExit(f"expected a photo of each of {len(weights['_fc.bias'])} classes")
    cache = options.cache
    small = [labelled] + [read_corpus(path) for path in [options.unlabelled] if path]
    small_features = [extract(each, engine, cache=cache).features for each in small]
    small_copies = [extract(each, engine, view=distorted, cache=cache).features for each in small]
    plain = extract(photos, engine, cache=cache).features
    views = [plain] + [
        extract(photos, engine, view=distorted, seed=seed, cache=cache).features
        for seed in range(options.views)
    ]
    classes = np.searchsorted(photos.classes, labelled.classes)
    nobody_says = [np.full(len(each), -1) for each in small[1:]]
    counts = [*map(len, small), len(views) * len(photos)]
    return Examples(
        features=np.concatenate([*small_features, *views]),
        copies=np.concatenate([*small_copies, *views[1:], views[0]]),
        labels=np.concatenate(
            [classes[labelled.labels], *nobody_says, *[photos.labels] * len(views)]
        ),
        groups=np.repeat(np.arange(len(counts)), counts),
        class_weight=weights["_fc.weight"],
        class_bias=weights["_fc.bias"],
    )


def _centres(
    codes: NDArray[np.uint8], options: argparse.Namespace
) -> dict[str, NDArray[np.uint8]]:
    if not options.centres:
        return {}
    return {
        "centres": learn_centres(
            codes, options.centres, bits=options.bits, rounds=_ROUNDS, seed=options.seed
        )
    }


if __name__ == "__main__":
    main()
