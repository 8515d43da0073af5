"""``lookalike store retrain``: file long codes by centres learned from the collection itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from models.progress import progress
from ops.cli.console import Console
from ops.cli.options import Command, settings_options
from ops.cli.shards import shard_folders
from ops.cli.signals import terminable
from ops.wording import counted
from store import NothingToRetrain, Shard
from store.buckets import LONGEST_KEY_BITS
from store.retraining import MOST_CENTRES, Retraining, centres_wanted
from workers.learning import learn_for
from workers.settings import Settings


@click.command("retrain", cls=Command)
@click.option(
    "--centres",
    type=click.IntRange(1, MOST_CENTRES),
    help="How many centre codes to learn; by default about one for 1,024 images.",
)
@settings_options("data_dir")
@click.pass_obj
def retrain(console: Console, centres: int | None, settings: Settings) -> None:
    """Learn new buckets from the stored codes, and file all images in them.

    Searches and writes go on, and use the buckets of before until all images are filed. A run
    that was cut off is gone on with by the next one, unless that asks for a number of centres.
    """
    with terminable():
        for path in shard_folders(settings.data_dir):
            with Shard.open_existing(path) as shard:
                filed = _retrained(shard, path, centres, console)
                _tell(shard, path, console, filed=filed)


def _retrained(shard: Shard, path: Path, wanted: int | None, console: Console) -> bool:
    """Retrain a shard; False where there are too few codes to learn from."""
    if shard.spec.bits <= LONGEST_KEY_BITS:
        raise NothingToRetrain(
            f"the codes in {path} have {shard.spec.bits} bits and are their own buckets; "
            f"only codes of more than {LONGEST_KEY_BITS} bits have buckets to be learned"
        )
    learned = None
    if wanted is not None or shard.retraining() is None:
        count = wanted or centres_wanted(shard.count())
        with console.step(f"Learning {counted(count, 'centre code')} for {path.name}"):
            learned = learn_for(shard, count)
        if learned is None:
            return False
    with _bar(path.name) as show:
        shard.retrain(learned, progress=show)
    return True


@contextmanager
def _bar(title: str) -> Iterator[Callable[[Retraining], None]]:
    with ExitStack() as stack:
        bars: list[Any] = []

        def show(state: Retraining) -> None:
            if not bars:
                bar = progress(total=state.rows, title=title, begin=state.done)
                bars.append(stack.enter_context(bar))
            bars[0].update(state.done - bars[0].n)

        yield show


def _tell(shard: Shard, path: Path, console: Console, *, filed: bool) -> None:
    stats = shard.stats()
    record = {
        "path": path,
        "retrained": filed,
        "images": stats.images,
        "centres": stats.centres,
        "buckets": stats.buckets,
        "largest_bucket": stats.largest_bucket,
    }
    done = "filed by" if filed else "too few different codes to learn from; still filed by"
    console.result(
        record,
        f"{path}: {counted(stats.images, 'image')}, {done} "
        f"{counted(stats.centres, 'centre code')}, "
        f"{counted(stats.largest_bucket, 'image')} in the fullest bucket.",
    )
