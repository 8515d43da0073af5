"""The options of ``lookalike search`` that say what is to be found."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from ops.cli.options import Finite
from workers.client.checks import moment
from workers.errors import InvalidRequest
from workers.options import (
    COLLAPSE_DISTANCE,
    DEFAULT_EFFORT,
    DEFAULT_K,
    MAX_EFFORT,
    MIN_EFFORT,
    SearchOptions,
)

Callback = Callable[..., None]


class Moment(click.ParamType[float]):
    """A time, read as Unix time in seconds; one that names no zone is local."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the Unix time that a text means."""
        try:
            return moment(self.name, value, zone=None)
        except InvalidRequest as error:
            self.fail(f"{value!r} is no time. {error.remedy}", param, ctx)


_DISTANCE = Finite(min=0)
_OPTIONS = (
    click.option("-k", type=int, default=DEFAULT_K, show_default=True, help="Most hits."),
    click.option(
        "--effort",
        type=int,
        default=DEFAULT_EFFORT,
        show_default=True,
        help=f"Time against recall: {MIN_EFFORT} (quick) to {MAX_EFFORT} (compares every image).",
    ),
    click.option("--max-distance", type=_DISTANCE, help="Only hits that are at most this far."),
    click.option(
        "--label",
        "labels",
        metavar="NAME",
        multiple=True,
        help="Only images with this label, or another one given; may be repeated.",
    ),
    click.option(
        "--source",
        default="",
        metavar="START",
        help="Only images with a path or URL that starts with this.",
    ),
    click.option(
        "--since",
        type=Moment(),
        help="Only images added then or later, such as 2026-11-23 or 2026-11-23T18:30.",
    ),
    click.option("--until", type=Moment(), help="Only images added before then."),
    click.option(
        "--collapse", is_flag=True, help="Fold near-duplicates into the nearest of them."
    ),
    click.option(
        "--collapse-distance",
        type=_DISTANCE,
        help="Fold as --collapse does, with this largest distance of the features.  "
        f"[default: {COLLAPSE_DISTANCE}]",
    ),
)


def search_options(function: Callback) -> Callback:
    """Give a command the options of a search, as one argument ``options``."""

    @functools.wraps(function)
    def with_options(
        *args: Any, source: str, collapse: bool, collapse_distance: float | None, **kwargs: Any
    ) -> None:
        asked = {name: kwargs.pop(name) for name in _PLAIN}
        options = SearchOptions(
            **asked,
            # As it would be written down of a file: names that are no valid text survive it.
            source=os.fsencode(source).decode("utf-8", "replace"),
            collapse=_distance(collapse, collapse_distance),
        )
        function(*args, options=options, **kwargs)

    command: Callback = with_options
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _distance(collapse: bool, distance: float | None) -> float | None:
    """Return the distance of near-duplicates, or ``None`` where nothing is folded."""
    if distance is None:
        return COLLAPSE_DISTANCE if collapse else None
    return distance


_PLAIN = ("k", "effort", "max_distance", "labels", "since", "until")
