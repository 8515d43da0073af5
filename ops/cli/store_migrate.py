"""``lookalike store migrate``: bring a collection of an earlier version to this one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from models.progress import progress
from ops.cli.console import Console, leave
from ops.cli.exits import Exit
from ops.cli.options import Command, settings_options
from ops.cli.shards import shard_folders
from ops.cli.signals import terminable
from ops.wording import counted
from store.migrate import Migration
from store.migrate import migrate as migrate_shard
from workers.settings import Settings


@click.command("migrate", cls=Command)
@click.option("--keep", is_flag=True, help="Keep the old shards, in shards/format-1.")
@click.option(
    "--skip-damaged", is_flag=True, help="Leave out images that cannot be read, and name them."
)
@settings_options("data_dir")
@click.pass_obj
def migrate(console: Console, keep: bool, skip_damaged: bool, settings: Settings) -> None:
    """Bring the shards of an earlier version to the format in use; others stay as they are.

    Nobody may have the collection open. A shard is built anew beside the old one and takes its
    place when it is whole; interrupted or killed, the command is simply repeated.
    """
    damaged = False
    with terminable():
        for path in shard_folders(settings.data_dir):
            outcome = _one(path, keep=keep, skip_damaged=skip_damaged)
            console.result(outcome, _told(outcome))
            damaged = damaged or bool(outcome.left_out)
    leave(Exit.FAILED if damaged else Exit.DONE)


def _one(path: Path, *, keep: bool, skip_damaged: bool) -> Migration:
    with ExitStack() as stack:
        bars: list[Any] = []

        def show(done: int, of: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress(total=of, title=path.name)))
            bars[0].update(done - bars[0].n)

        return migrate_shard(path, keep=keep, skip_damaged=skip_damaged, progress=show)


def _told(outcome: Migration) -> str:
    if not outcome.migrated:
        return f"{outcome.path}: {counted(outcome.images, 'image')}, in the format in use already."
    lines = [f"{outcome.path}: {counted(outcome.images, 'image')} brought to the format in use."]
    lines += [f"  left out: {each}" for each in outcome.left_out]
    if outcome.kept:
        lines.append(f"  the old shard is kept in {outcome.kept}")
    return "\n".join(lines)
