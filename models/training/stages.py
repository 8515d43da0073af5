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
from models.evaluation.retrieval import Embedded
from models.graphs.latent import with_latent
from models.labelled.corpus import Corpus
from models.labelled.errors import CorpusError
from models.labelled.extraction import Extracted, extract
from models.labelled.readable import readable
from models.labelled.skipped import Skipped
from models.labelled.split import hold_out
from models.training.bases import Base
from models.training.code_weight import Seen
from models.training.options import Options

_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.05, 5000
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Result:
    """What a stage gave.

    Attributes:
        graph: The network with the outputs of its features and `latent`.
        look: Looks at the images with a bundle of the graph; `known` are those of `corpus`.
        corpus: The images that could be read, held-out ones included.
        held_out: How many images decided which epoch is best.
        skipped: The images that could not be read.
        recipe: Every setting of the recipe.
        accuracy: Share of the held-out images whose class is read off their code.
        history: A record for each epoch: `epoch`, `loss`, `accuracy`.
    """

    graph: onnx.ModelProto
    look: Callable[[Bundle], Seen]
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
        others = known
        if self.validation is None:
            rows, held = _split(labels, recipe.seed)
        else:
            others = self._extract(self.validation, bundle)
            rows, held = np.arange(len(labels)), np.arange(len(others.corpus))
        other = Rows(others.features, others.corpus.labels, held)
        learned = learn_frozen(
            Rows(known.features, labels, rows),
            other,
            bits=self.options.bits,
            classes=len(self.corpus.classes),
            recipe=recipe,
            work=self.work / "layer",
        )

        def coded(images: Extracted) -> Embedded:
            codes = _codes(images.features, learned.weight, learned.bias)
            return Embedded(images.features, codes, images.corpus.labels)

        def look(_: Bundle) -> Seen:
            return Seen(coded(known), rows, coded(others), held)

        return Result(
            graph=with_latent(self.base.graph, learned.weight, learned.bias),
            look=look,
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

        def look(bundle: Bundle) -> Seen:
            # Kept: whoever evaluates the bundle, or learns another code on it, needs them next.
            known = self._extract(corpus, bundle)
            others = known if self.validation is None else self._extract(other, bundle)
            return Seen(
                _embedded(known, bundle),
                _rows_of(learned_from, known),
                _embedded(others, bundle),
                _rows_of(other, others),
            )

        return Result(
            graph=found.graph,
            look=look,
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


def _codes(
    features: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.uint8]:
    starts = range(0, len(features), _ROWS_AT_ONCE)
    parts = (features[start : start + _ROWS_AT_ONCE] for start in starts)
    return np.concatenate([np.packbits(part @ weight.T + bias > 0, axis=1) for part in parts])


def _embedded(images: Extracted, bundle: Bundle) -> Embedded:
    codes = np.packbits(images.latent > bundle.code_threshold, axis=1)
    return Embedded(images.features, codes, images.corpus.labels)


def _rows_of(corpus: Corpus, images: Extracted) -> NDArray[np.int64]:
    wanted = {*corpus.paths}
    return np.flatnonzero([path in wanted for path in images.corpus.paths])


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
