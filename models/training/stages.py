"""The two ways to learn codes: on frozen features, and with the whole network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from models.bundle import Bundle
from models.engines import open_engine
from models.graphs.latent import with_latent
from models.labelled.corpus import Corpus
from models.labelled.errors import CorpusError
from models.labelled.extraction import Extracted, extract
from models.labelled.readable import readable
from models.labelled.skipped import Skipped
from models.labelled.split import hold_out
from models.training.bases import Base
from models.training.options import Options

_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.05, 5000
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Result:
    """What a stage gave.

    Attributes:
        graph: The network with the outputs of its features and `latent`.
        codes: Makes the codes of `corpus`, given a bundle of the graph: shape=(N, ceil(B/8)),
            dtype=uint8, packed.
        corpus: The images that could be read, held-out ones included.
        held_out: How many images decided which epoch is best.
        skipped: The images that could not be read.
        recipe: Every setting of the recipe.
        accuracy: Share of the held-out images whose class is read off their code.
        history: A record for each epoch: `epoch`, `loss`, `accuracy`.
    """

    graph: onnx.ModelProto
    codes: Callable[[Bundle], NDArray[np.uint8]]
    corpus: Corpus
    held_out: int
    skipped: tuple[Skipped, ...]
    recipe: dict[str, Any]
    accuracy: float
    history: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Stage:
    """What both ways start from.

    Attributes:
        base: The network.
        options: How to train.
        corpus: The images to learn from.
        validation: Other images of the same classes, or None.
        work: The work folder.
        features: Folder that keeps features between runs.
        threads: Threads of the network that makes them.
    """

    base: Base
    options: Options
    corpus: Corpus
    validation: Corpus | None
    work: Path
    features: Path
    threads: int

    def frozen(self) -> Result:
        """Learn a latent layer on features that stay as they are (stage 1)."""
        from models.training.frozen import FrozenRecipe, Rows, learn_frozen

        recipe = FrozenRecipe(**self.options.recipe)
        bundle = self.base.with_bundle(self.work / "base")
        known = self._extract(self.corpus, bundle)
        labels = _several_classes(known.corpus).labels
        if self.validation is None:
            rows, held = _split(labels, recipe.seed)
            other = Rows(known.features, labels, held)
        else:
            rows = np.arange(len(labels))
            asked = self._extract(self.validation, bundle)
            other = Rows(asked.features, asked.corpus.labels, np.arange(len(asked.corpus)))
        learned = learn_frozen(
            Rows(known.features, labels, rows),
            other,
            bits=self.options.bits,
            classes=len(self.corpus.classes),
            recipe=recipe,
            work=self.work / "layer",
        )

        def codes(_: Bundle) -> NDArray[np.uint8]:
            starts = range(0, len(known.features), _ROWS_AT_ONCE)
            parts = (known.features[start : start + _ROWS_AT_ONCE] for start in starts)
            return np.concatenate(
                [np.packbits(part @ learned.weight.T + learned.bias > 0, axis=1) for part in parts]
            )

        return Result(
            graph=with_latent(self.base.graph, learned.weight, learned.bias),
            codes=codes,
            corpus=known.corpus,
            held_out=len(other),
            skipped=known.skipped,
            recipe=asdict(recipe),
            accuracy=learned.accuracy,
            history=learned.history,
        )

    def finetuned(self, device: str) -> Result:
        """Let the whole network learn (stage 2).

        Args:
            device: `cpu` or `cuda`.
        """
        from models.training.finetune import FinetuneRecipe, finetune

        recipe = FinetuneRecipe(**self.options.recipe)
        pictures = self.base.preprocess
        corpus, skipped = readable(self.corpus, min_side_px=pictures.min_side_px)
        _several_classes(corpus)
        if self.validation is None:
            rows, held = _split(corpus.labels, recipe.seed)
            learned_from, other = corpus.take(rows), corpus.take(held)
        else:
            learned_from = corpus
            other, _ = readable(self.validation, min_side_px=pictures.min_side_px)
        found = finetune(
            self.base.graph,
            learned_from,
            validation=other,
            preprocess=pictures,
            bits=self.options.bits,
            recipe=recipe,
            work=self.work / "network",
            device=device,
        )

        def codes(bundle: Bundle) -> NDArray[np.uint8]:
            # Kept: whoever evaluates the bundle, or learns another code on it, needs them next.
            extracted = self._extract(corpus, bundle)
            return np.packbits(extracted.latent > bundle.code_threshold, axis=1)

        return Result(
            graph=found.graph,
            codes=codes,
            corpus=corpus,
            held_out=len(other),
            skipped=skipped,
            recipe=asdict(recipe),
            accuracy=max(each["accuracy"] for each in found.history),
            history=found.history,
        )

    def _extract(self, corpus: Corpus, bundle: Bundle) -> Extracted:
        with open_engine(bundle, threads=self.threads) as engine:
            return extract(corpus, engine, cache=self.features)


def _split(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return hold_out(labels, share=_HELD_OUT_SHARE, most=_MOST_HELD_OUT, seed=seed)


def _several_classes(corpus: Corpus) -> Corpus:
    there = np.unique(corpus.labels)
    if len(there) < 2:
        raise CorpusError(
            f"only the class {corpus.classes[there[0]]!r} of {corpus.root} has images that can be "
            "read; replace the others"
        )
    return corpus
