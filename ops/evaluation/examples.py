"""Example queries with their hits, as pictures small enough to lie inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import ImageError
from models.labelled.pictures import no_warnings, read_picture
from ops.evaluation.run import Evaluation

RANKINGS = ("codes", "reranked")

_RANDOM, _WORST = 6, 4
_SIDE_PX, _QUALITY = 96, 70


@dataclass(frozen=True)
class Picture:
    """One picture of an example.

    Attributes:
        uri: A `data:` URI of a small JPEG; empty if the file is gone.
        label: Its class.
        right: Whether that is the query's class.
    """

    uri: str
    label: str
    right: bool


@dataclass(frozen=True)
class Row:
    """The first hits of one ranking by one bundle."""

    bundle: str
    ranking: str
    hits: tuple[Picture, ...]


@dataclass(frozen=True)
class Example:
    """A query, why it is shown, and its hits."""

    query: Picture
    why: str
    rows: tuple[Row, ...]


def examples_of(
    found: Sequence[Evaluation], classes: Sequence[str], *, seed: int
) -> list[Example]:
    """Choose queries, some at random and some that go worst, and show their hits.

    Args:
        found: One evaluation, or two on the same images.
        classes: Names of the classes by label.
        seed: For the draw.
    """
    with no_warnings():
        return [_example(found, classes, query, why) for query, why in _chosen(found[0], seed)]


def _chosen(found: Evaluation, seed: int) -> Iterator[tuple[int, str]]:
    queries = len(found.queries)
    drawn = np.random.default_rng(seed).permutation(queries)[:_RANDOM].tolist()
    by_precision = np.argsort(found.qualities["codes"].by_query, kind="stable")
    worst = [query for query in by_precision.tolist() if query not in drawn][:_WORST]
    yield from ((query, "drawn at random") for query in drawn)
    yield from ((query, "among the worst by code") for query in worst)


def _example(found: Sequence[Evaluation], classes: Sequence[str], query: int, why: str) -> Example:
    images = found[0].queries
    path, label = images.paths[query], int(images.embedded.labels[query])
    rows = [
        _row(each, ranking, classes, each.queries.paths.index(path), label)
        for each in found
        # An image that only one of the two networks could take.
        if path in each.queries.paths
        for ranking in RANKINGS
    ]
    return Example(Picture(_uri(path), classes[label], right=True), why, tuple(rows))


def _row(found: Evaluation, ranking: str, classes: Sequence[str], query: int, label: int) -> Row:
    database = found.database
    hits = tuple(
        Picture(_uri(database.paths[row]), classes[of_hit], right=of_hit == label)
        for row in found.top[ranking][query]
        for of_hit in [int(database.embedded.labels[row])]
    )
    return Row(found.bundle.name, ranking, hits)


def _uri(path: Path) -> str:
    try:
        picture = read_picture(path, min_side_px=_SIDE_PX)
    except ImageError:  # deleted since the network saw it
        return ""
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
