"""An evaluation as one plain record, and as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.codes import BitFigures
from ops.evaluation.data import Images
from ops.evaluation.run import Evaluation, Quality
from workers.searching import DEFAULT_EFFORT

FORMAT = 1
RANKINGS = {
    "codes": "codes alone",
    "reranked": "re-ranked by feature",
    "features": "features, every image",
    "itq": "ITQ, as many bits",
}
"""Name of each ranking in the record -> what people read."""

DEPTHS = (1, 10, 100, 1000)
_CURVE_POINTS = 60
_TOLD_SKIPPED = 10


def record_of(found: Evaluation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that was measured, as numbers, strings, lists and mappings.

    Args:
        found: The figures.
        settings: What the command was asked for; it is told along.
    """
    codes, reranked = found.qualities["codes"], found.qualities["reranked"]
    return {
        "format": FORMAT,
        "bundle": _bundle(found),
        "settings": {**settings, "k": found.rules.k, "candidates": found.rules.candidates},
        "database": _counts(found.database),
        "queries": _counts(found.queries),
        "map_at_k": _rounded(codes.map_of_found),
        "map_at_k_of_all": _rounded(codes.map_of_all),
        "map_at_k_reranked": _rounded(reranked.map_of_found),
        "map_at_k_reranked_of_all": _rounded(reranked.map_of_all),
        "precision_at": precision_at(codes.precision),
        "precision_at_reranked": precision_at(reranked.precision),
        "recall_at": _recall_at(found),
        "rankings": {name: _quality(each) for name, each in found.qualities.items()},
        "ties": {
            order: {"map_at_k": _rounded(pair[0]), "map_at_k_of_all": _rounded(pair[1])}
            for order, pair in asdict(found.ties).items()
        },
        "bits": _bits(found.bits),
        "buckets": _all_rounded(asdict(found.buckets)),
        "stored": _stored(found),
        "searches": [_all_rounded(asdict(each)) for each in found.searches],
        "curves": _curves(found),
    }


def joined(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one record, with that of the other bundle as `against`, or None there."""
    return {**records[0], "against": records[1] if len(records) > 1 else None}


def precision_at(curve: NDArray[np.float64]) -> dict[str, float]:
    """Return the precision at some depths, by depth."""
    return {str(k): _rounded(curve[k - 1]) for k in DEPTHS if k <= len(curve)}


def _bundle(found: Evaluation) -> dict[str, Any]:
    names = ("name", "id", "bits", "dims", "metric", "code_weight")
    return {name: getattr(found.bundle, name) for name in names}


def _counts(images: Images) -> dict[str, Any]:
    skipped = images.skipped[:_TOLD_SKIPPED]
    return {
        "images": len(images),
        "classes": len(np.unique(images.embedded.labels)),
        "skipped": len(images.skipped),
        "first_skipped": [{"path": str(each.path), "reason": each.reason} for each in skipped],
    }


def _quality(found: Quality) -> dict[str, Any]:
    return {
        "map_at_k": _rounded(found.map_of_found),
        "map_at_k_of_all": _rounded(found.map_of_all),
        "precision_at": precision_at(found.precision),
    }


def _recall_at(found: Evaluation) -> dict[str, float]:
    """Recall of a search with the default effort, or with every image where that is fewer."""
    usual = next(each for each in found.searches if each.effort >= DEFAULT_EFFORT)
    return {str(depth): _rounded(recall) for depth, recall in usual.recall.items()}


def _bits(found: BitFigures) -> dict[str, Any]:
    ones, entropy = found.ones, found.entropy
    return {
        "ones": {"least": _rounded(ones.min()), "mean": _rounded(ones.mean()),
                 "most": _rounded(ones.max())},
        "entropy": {"least": _rounded(entropy.min()), "mean": _rounded(entropy.mean())},
        "mean_correlation": _rounded(found.mean_correlation),
        "largest_correlation": _rounded(found.largest_correlation),
        "effective_bits": _rounded(found.effective_bits),
        "ones_by_bit": [_rounded(share) for share in ones],
    }  # fmt: skip


def _stored(found: Evaluation) -> dict[str, Any]:
    """What is lost when features are stored in a smaller type; below 0 is a gain."""
    exact = {name: found.qualities[name] for name in ("features", "reranked")}
    return {
        kind: {
            name: {
                **_quality(getattr(stored, name)),
                "loss": _rounded(whole.map_of_found - getattr(stored, name).map_of_found, 6),
                "loss_of_all": _rounded(whole.map_of_all - getattr(stored, name).map_of_all, 6),
            }
            for name, whole in exact.items()
        }
        for kind, stored in found.stored.items()
    }


def _curves(found: Evaluation) -> dict[str, Any]:
    places = curve_places(found.rules.k)
    precision = {
        name: [_rounded(each.precision[k - 1]) for k in places]
        for name, each in found.qualities.items()
    }
    return {"k": places, "precision": precision}


def curve_places(k: int) -> list[int]:
    """Return the ranks at which a curve is drawn, evenly spread on a logarithmic axis."""
    return sorted({round(place) for place in np.geomspace(1, k, _CURVE_POINTS)})


def _rounded(value: float, digits: int = 4) -> float:
    # Adding 0 turns -0 into 0.
    return round(float(value), digits) + 0.0


def _all_rounded(figures: Any) -> Any:
    if isinstance(figures, Mapping):
        return {str(name): _all_rounded(each) for name, each in figures.items()}
    return _rounded(figures) if isinstance(figures, float) else figures


def table_of(record: Mapping[str, Any]) -> str:
    """Return the figures as lines for people."""
    return "\n".join(_lines(record))


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    database, queries, k = record["database"], record["queries"], record["settings"]["k"]
    yield (
        f"{record['bundle']['id']}: {queries['images']:,} queries, {database['images']:,} images "
        f"of {database['classes']} classes, {database['skipped'] + queries['skipped']} skipped"
    )
    yield f"{'':<24}{f'mAP@{k}':>10}{'of all':>10}{'P@10':>10}{'P@100':>10}"
    for name, each in record["rankings"].items():
        scores = (each["map_at_k"], each["map_at_k_of_all"])
        depths = (each["precision_at"].get(depth) for depth in ("10", "100"))
        yield f"{RANKINGS[name]:<24}" + "".join(map(_cell, (*scores, *depths)))
    ties, bits, buckets = record["ties"], record["bits"], record["buckets"]
    low, high = ties["relevant_last"]["map_at_k"], ties["relevant_first"]["map_at_k"]
    yield f"equal codes: {ties['expected']['map_at_k']} on average, {low} to {high} by their order"
    yield (
        f"bits set: {bits['ones']['least']} to {bits['ones']['most']}; entropy "
        f"{bits['entropy']['mean']}; effective bits {bits['effective_bits']}"
    )
    yield f"buckets: {buckets['used']:,} used, the largest holds {buckets['largest']:,}"
    for kind, each in record["stored"].items():
        lost = (each[name]["loss"] for name in ("reranked", "features"))
        yield "lost by storing {}: {:+.5f} re-ranked, {:+.5f} features".format(kind, *lost)
    for each in record["searches"]:
        depth, recall = list(each["recall"].items())[-1]
        yield f"effort {each['effort']}: recall@{depth} {recall}, {each['p50_ms']:.1f} ms"


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.4f'):>10}"
