"""``lookalike evaluate``: how well a bundle finds images of the same class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from models.bundle import Bundle
from models.engines import open_engine
from ops.cli.console import Console, shown
from ops.cli.options import Command, settings_options
from ops.cli.signals import terminable
from ops.evaluation.curves import MISSING, can_draw
from ops.evaluation.data import Split, read_split
from ops.evaluation.record import joined, record_of, table_of
from ops.evaluation.report import PAGE, prepare, write_report
from ops.evaluation.run import DEFAULT_K, Evaluation, Options, check, evaluate
from workers.bundles import find_bundle
from workers.settings import Settings

_FOLDER = click.Path(file_okay=False, path_type=Path)
_CORPUS = click.Path(path_type=Path)


@click.command("evaluate", cls=Command)
@click.argument("bundle")
@click.option(
    "--data",
    type=_CORPUS,
    required=True,
    help="Folder with train and test (or val) in it, or of class folders, or a CSV path,label.",
)
@click.option(
    "--queries", type=_CORPUS, help="Class folders or CSV of queries; --data is the database then."
)
@click.option("--against", help="Another bundle, measured on the same images and put beside it.")
@click.option("--k", type=int, help=f"Hits that count; {DEFAULT_K:,} by default, at most all.")
@click.option(
    "--sample", type=int, help="How many queries to draw; all of a test part by default."
)
@click.option(
    "--searches",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Queries that a real store is searched with, for recall and time.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For every draw."
)
@click.option("--out", type=_FOLDER, help="Write report.json, report.html and curves here.")
@click.option("--cache", type=_FOLDER, help="Keep features here; the next run takes them.")
@settings_options("bundles_dir", "cache_dir", "engine_threads")
@click.pass_obj
def evaluate_(
    console: Console,
    /,
    bundle: str,
    data: Path,
    queries: Path | None,
    against: str | None,
    sample: int | None,
    out: Path | None,
    settings: Settings,
    **how: Any,
) -> None:
    """Measure how well a bundle finds images of the same class.

    Ranks a labelled database for labelled queries: by code, by feature among the nearest codes
    as a search does it, by every feature, and by ITQ codes of the same length. Searches a real
    store with every effort, and looks at bits, buckets and stored features.
    """
    options = Options(**how)
    split = read_split(data, queries, sample=sample, seed=options.seed)
    check(split, options)
    names = [bundle] if against is None else [bundle, against]
    bundles = [find_bundle(settings, name) for name in names]
    if out is not None:
        prepare(out)
    # So that SIGTERM takes the store of the searches away too.
    with terminable():
        found = [_measured(each, split, options, settings) for each in bundles]
    asked = {"data": str(data), "queries": queries and str(queries), "sample": sample}
    records = [record_of(each, asked | _kept(options, settings)) for each in found]
    console.result(joined(records), "\n\n".join(map(table_of, records)))
    if out is not None:
        classes = split.database.classes
        write_report(out, found, records, classes=classes, seed=options.seed)
        console.note(f"The report is {shown(out / PAGE)}.")
        if not can_draw():
            console.note(f"{MISSING}.")


def _measured(bundle: Bundle, split: Split, options: Options, settings: Settings) -> Evaluation:
    with open_engine(
        bundle,
        engine=settings.engine,
        threads=settings.engine_threads,
        device=settings.engine_device,
    ) as engine:
        return evaluate(engine, split, options)


def _kept(options: Options, settings: Settings) -> dict[str, Any]:
    """What changes figures, and is told with them."""
    return {"seed": options.seed, "searches": options.searches, "engine": settings.engine}
