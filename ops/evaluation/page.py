"""The report as one page that needs nothing else: no script, no other file, no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ops.evaluation.curves import MISSING
from ops.evaluation.examples import Example
from ops.evaluation.record import DEPTHS, RANKINGS

_ALTERNATIVES = {
    "precision.png": "Precision at k falls as k grows, for each ranking; the table of rankings "
    "has the numbers.",
    "recall.png": "Recall of the bucket search against images compared and against milliseconds; "
    "the table of searches has the numbers.",
    "bits.png": "Histogram of the share of images that have each bit set.",
}


def page_of(
    records: Sequence[Mapping[str, Any]], curves: Mapping[str, bytes], examples: Sequence[Example]
) -> str:
    """Write the page.

    Args:
        records: Of one bundle, or of two to be compared.
        curves: File name -> PNG; empty where they could not be drawn.
        examples: Queries with their hits.

    Returns:
        HTML; every text in it that comes from elsewhere is escaped.
    """
    environment = Environment(
        loader=PackageLoader("ops.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = [(_png(data), _ALTERNATIVES[name]) for name, data in curves.items()]
    return environment.get_template("page.html").render(
        records=records,
        first=records[0],
        rankings=RANKINGS,
        depths=[str(depth) for depth in DEPTHS],
        curves=pictures,
        no_curves=MISSING,
        examples=examples,
    )


def _png(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
