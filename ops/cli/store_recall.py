"""``lookalike store recall``: what searches of this collection find, and which effort to take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import click

from models.progress import progress
from ops.cli.console import Console, leave
from ops.cli.exits import Exit
from ops.cli.options import Command, settings_options
from ops.cli.shards import shard_folders
from ops.cli.signals import terminable
from ops.recall import AtEffort, RecallReport, Skew, measure
from ops.wording import counted
from store import Shard
from workers.options import DEFAULT_K
from workers.settings import Settings


@click.command("recall", cls=Command)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Stored images to search for.",
)
@click.option(
    "-k", type=click.IntRange(min=1), default=DEFAULT_K, show_default=True, help="Hits of each."
)
@click.option(
    "--aim",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Recall that the effort is chosen for.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Begin no more searches after this time.",
)
@settings_options("data_dir")
@click.pass_obj
def recall(
    console: Console, sample: int, k: int, aim: float, seconds: float, settings: Settings
) -> None:
    """Compare searches of every effort with the exhaustive one, on stored images.

    Prints recall against time, how full the buckets are, and the smallest effort that reaches
    the aim. One thread searches all shards, one after the other.
    """
    with terminable(), ExitStack() as stack:
        folders = shard_folders(settings.data_dir)
        shards = [stack.enter_context(Shard.open_existing(path)) for path in folders]
        bar = stack.enter_context(progress(total=sample, title="searching", unit="query"))
        report = measure(
            shards,
            sample=sample,
            k=k,
            aim=aim,
            seconds=seconds,
            progress=lambda done: bar.update(done - bar.n),
        )
    if report is None:
        console.note("The collection holds fewer than two images: there is nothing to find.")
        leave(Exit.FAILED)
    console.result(report, "\n".join(_told(report, sample)))


def _told(report: RecallReport, sample: int) -> Iterator[str]:
    short = f" of {sample:,}, because time was up" if _cut_short(report, sample) else ""
    images, queries = counted(report.images, "image"), counted(report.queries, "query")
    yield f"{images}, {queries}{short}, {counted(report.k, 'hit')} each"
    yield ""
    yield "effort  candidates  recall   worst       p50       p99"
    telling = _telling(report)
    yield from (_line(each) for each in telling)
    if len(telling) < len(report.efforts):
        yield f"From effort {telling[-1].effort} on every image is compared."
    yield ""
    yield from (_buckets(each) for each in report.shards)
    yield ""
    yield (
        f"Effort {report.effort} is the smallest with a recall of {report.aim:g}; "
        f"the default is {report.default_effort}."
    )
    if any(each.retraining_due for each in report.shards):
        yield "Searches read more codes than they need to: run `lookalike store retrain`."


def _cut_short(report: RecallReport, sample: int) -> bool:
    return report.queries < min(sample, report.images)


def _telling(report: RecallReport) -> list[AtEffort]:
    """Return the efforts up to the first that compares every image: those after it are equal."""
    fullest = max(each.images for each in report.shards)
    partial = [each for each in report.efforts if (each.candidates or fullest) < fullest]
    return [*partial, report.efforts[len(partial)]]


def _line(each: AtEffort) -> str:
    candidates = "all" if each.candidates is None else f"{each.candidates:,}"
    return (
        f"{each.effort:>6}  {candidates:>10}  {each.recall:.4f}  {each.worst:.4f}"
        f"  {each.p50_ms:>7.2f}  {each.p99_ms:>7.2f} ms"
    )


def _buckets(each: Skew) -> str:
    key = counted(each.centres, "centre code") if each.centres else "a bucket for each code"
    retrained = f", generation {each.generation}" if each.generation else ""
    return (
        f"{each.path}: {counted(each.images, 'image')}, {key}{retrained}\n"
        f"  {counted(each.buckets, 'bucket')}, {counted(each.largest, 'image')} in the fullest, "
        f"{each.mean:,} on average; Gini coefficient {each.gini:.2f}"
    )
