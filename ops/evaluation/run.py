"""All figures of one bundle on one set of labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.engine import Engine
from models.evaluation.codes import BitFigures, BucketFigures, bit_figures, bucket_figures
from models.evaluation.itq import learn_itq
from models.evaluation.measures import average_precision, mean_average_precision, precision_curve
from models.evaluation.retrieval import Embedded, Ranked, Rules, rank_by_code, rank_by_feature
from models.evaluation.ties import Groups, expected_precision
from ops.evaluation.data import Images, Split, embed_split
from ops.evaluation.searches import EffortFigures, search_figures, spec_of
from store.buckets import open_buckets
from store.values import quantise, restore
from workers.errors import InvalidRequest
from workers.searching import DEFAULT_EFFORT, candidates_for

DEFAULT_K = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure.

    Attributes:
        k: K, the hits that count; None takes 1,000, or the whole database if it is smaller.
        seed: For the order of the database, ITQ and the searches of the store.
        searches: Queries that the store is searched with, at most.
        cache: Folder for features, or None.
    """

    k: int | None
    seed: int
    searches: int
    cache: Path | None


@dataclass(frozen=True)
class Quality:
    """How well a kind of ranking does.

    Attributes:
        map_of_found: Mean average precision at K, divided by the relevant hits that were found.
        map_of_all: The same, divided by min(K, relevant images); see
            `models.evaluation.measures`.
        precision: Precision at each rank, shape=(K,), dtype=float64.
        by_query: Average precision of each query, of found, shape=(Q,), dtype=float64.
    """

    map_of_found: float
    map_of_all: float
    precision: NDArray[np.float64]
    by_query: NDArray[np.float64]


@dataclass(frozen=True)
class TieFigures:
    """What the order of equal Hamming distances does to the mAP of codes.

    Each a pair (of found, of all): the mean over all orders, and with the relevant ones of each
    group of equals last and first.
    """

    expected: tuple[float, float]
    relevant_last: tuple[float, float]
    relevant_first: tuple[float, float]


@dataclass(frozen=True)
class Stored:
    """Qualities with features that were stored in a smaller type: of features, of re-ranking."""

    features: Quality
    reranked: Quality


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of a bundle.

    Attributes:
        bundle: What was measured.
        rules: How rankings were made.
        database: What was searched, without features.
        queries: What was searched for, likewise.
        qualities: By the name of the ranking: codes, reranked, features, itq (where there are
            no more bits than dimensions).
        top: Rows of the first hits of the same rankings, shape=(Q, 10), dtype=int64.
        ties: Of the codes.
        bits: Of the database's codes.
        buckets: Of a store of the database.
        stored: By the type that features are stored in.
        searches: By effort.
    """

    bundle: Bundle
    rules: Rules
    database: Images
    queries: Images
    qualities: dict[str, Quality]
    top: dict[str, NDArray[np.int64]]
    ties: TieFigures
    bits: BitFigures
    buckets: BucketFigures
    stored: dict[str, Stored]
    searches: list[EffortFigures]


def _as_int8(features: NDArray[np.float32]) -> NDArray[np.float32]:
    values, scales, _ = quantise(features)
    return restore(values, scales)


def _as_float16(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features.astype(np.float16).astype(np.float32)


STORED_AS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "int8": _as_int8,
    "float16": _as_float16,
}
"""What is left of features that were stored in a smaller type; int8 is what the store does."""


def evaluate(engine: Engine, split: Split, options: Options) -> Evaluation:
    """Measure the bundle of an engine.

    Raises:
        InvalidRequest: K is larger than the database, or a class cannot be read.
        ModelError: The network or the images cannot be used.
        StoreError: The store for the searches cannot be written.
    """
    check(split, options)
    database, queries = embed_split(split, engine, seed=options.seed, cache=options.cache)
    rules = _rules(engine.bundle, len(database), options.k)
    return _measured(engine.bundle, rules, database, queries, options)


def check(split: Split, options: Options) -> None:
    """Refuse what cannot be measured, before the network runs for minutes.

    Raises:
        InvalidRequest: K is larger than the database.
    """
    _hits(options.k, len(split.database))


def _hits(k: int | None, images: int) -> int:
    if k is not None and not 1 <= k <= images:
        raise InvalidRequest(
            f"k is {k}, and the database has {images} images.",
            remedy=f"Give --k from 1 to {images}, or a larger database.",
        )
    return min(DEFAULT_K, images) if k is None else k


def _rules(bundle: Bundle, images: int, k: int | None) -> Rules:
    hits = _hits(k, images)
    return Rules(
        k=hits,
        # The rule of a search; at the default effort it always leaves images out.
        candidates=candidates_for(DEFAULT_EFFORT, hits) or images,
        bits=bundle.bits,
        metric=bundle.metric,
        code_weight=bundle.code_weight,
    )


def _measured(
    bundle: Bundle, rules: Rules, database: Images, queries: Images, options: Options
) -> Evaluation:
    theirs, ours = database.embedded, queries.embedded
    codes, groups = rank_by_code(ours, theirs, rules)
    features, reranked = rank_by_feature(ours, theirs, rules)
    ranked = {"codes": codes, "reranked": reranked, "features": features}
    if rules.bits <= bundle.dims:
        ranked["itq"] = _by_itq(ours, theirs, rules, options.seed)
    total = _total(ours, theirs)
    return Evaluation(
        bundle=bundle,
        rules=rules,
        database=_without_features(database),
        queries=_without_features(queries),
        qualities={name: _quality(each, total) for name, each in ranked.items()},
        top={name: each.top for name, each in ranked.items()},
        ties=_ties(groups, rules.k),
        bits=bit_figures(theirs.codes, bits=rules.bits),
        buckets=bucket_figures(open_buckets(spec_of(bundle)).file(theirs.codes)[0]),
        stored={name: _stored(name, ours, theirs, rules) for name in STORED_AS},
        searches=search_figures(bundle, _some(ours, options), theirs),
    )


def _by_itq(queries: Embedded, database: Embedded, rules: Rules, seed: int) -> Ranked:
    itq = learn_itq(database.features, bits=rules.bits, seed=seed)
    ours, theirs = (replace(each, codes=itq.codes(each.features)) for each in (queries, database))
    return rank_by_code(ours, theirs, rules, name="ITQ")[0]


def _stored(name: str, queries: Embedded, database: Embedded, rules: Rules) -> Stored:
    smaller = replace(database, features=STORED_AS[name](database.features))
    features, reranked = rank_by_feature(queries, smaller, rules, name=f"{name} features")
    total = _total(queries, database)
    return Stored(_quality(features, total), _quality(reranked, total))


def _total(queries: Embedded, database: Embedded) -> NDArray[np.int64]:
    """Relevant images of each query."""
    count = np.bincount(database.labels)
    found: NDArray[np.int64] = count[queries.labels]
    return found


def _quality(ranked: Ranked, total: NDArray[np.int64]) -> Quality:
    by_query = average_precision(ranked.relevant)
    return Quality(
        float(by_query.mean()),
        mean_average_precision(ranked.relevant, total),
        precision_curve(ranked.relevant),
        by_query,
    )


def _ties(groups: Groups, k: int) -> TieFigures:
    def both(groups: Groups) -> tuple[float, float]:
        of_found, of_all = (
            float(expected_precision(groups, k, of_all=of_all).mean()) for of_all in (False, True)
        )
        return of_found, of_all

    return TieFigures(
        expected=both(groups),
        relevant_last=both(groups.ordered(relevant_first=False)),
        relevant_first=both(groups.ordered(relevant_first=True)),
    )


def _some(queries: Embedded, options: Options) -> Embedded:
    order = np.random.default_rng(options.seed).permutation(len(queries))
    return queries.take(order[: options.searches])


def _without_features(images: Images) -> Images:
    """Features of two bundles need not be in memory at a time."""
    nothing = np.empty((len(images), 0), np.float32)
    return replace(images, embedded=replace(images.embedded, features=nothing))
