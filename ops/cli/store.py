"""``lookalike store``: figures, checks and upkeep of the shards on disk, without the network."""

from __future__ import annotations

import click

from ops.cli.console import Console, leave, plain
from ops.cli.exits import Exit
from ops.cli.options import Group, settings_options
from ops.cli.shards import shard_folders
from ops.cli.store_backup import backup, restore
from ops.cli.store_compact import compact
from ops.cli.store_migrate import migrate
from ops.cli.store_recall import recall
from ops.cli.store_retrain import retrain
from ops.cli.store_transfer import export_, import_
from ops.wording import counted
from store import Shard, ShardStats
from workers.settings import Settings


@click.group(cls=Group)
def store() -> None:
    """Figures and checks of the store on disk, and its upkeep."""


store.add_command(compact)
store.add_command(retrain)
store.add_command(recall)
store.add_command(migrate)
store.add_command(backup)
store.add_command(restore)
store.add_command(export_)
store.add_command(import_)


@store.command("stats")
@settings_options("data_dir")
@click.pass_obj
def stats(console: Console, settings: Settings) -> None:
    """Print figures about each shard: images, buckets, bytes."""
    for path in shard_folders(settings.data_dir):
        with Shard.open_existing(path) as shard:
            figures = shard.stats()
        console.result(figures, _told(figures))


@store.command("check")
@settings_options("data_dir")
@click.pass_obj
def check(console: Console, settings: Settings) -> None:
    """Cross-check every record of each shard; the exit code is 1 if anything is wrong.

    Writers wait while a shard is checked.
    """
    whole = True
    for path in shard_folders(settings.data_dir):
        with Shard.open_existing(path) as shard:
            report = shard.check()
        whole = whole and report.ok
        record = {"path": path, "ok": report.ok, **plain(report)}
        verdict = "nothing is wrong" if report.ok else counted(len(report.problems), "problem")
        lines = [f"{path}: {counted(report.images, 'image')}, {verdict}."]
        console.result(record, "\n".join([*lines, *(f"  {each}" for each in report.problems)]))
    leave(Exit.DONE if whole else Exit.FAILED)


def _told(figures: ShardStats) -> str:
    one = figures.used_bytes / max(figures.images, 1)
    fullest = counted(figures.largest_bucket, "image")
    return (
        f"{figures.path}: {counted(figures.images, 'image')}, bundle {figures.bundle_id}\n"
        f"  {figures.bits} bits, {figures.dims} dimensions, {figures.metric}\n"
        f"  {counted(figures.buckets, 'bucket')}, {fullest} in the fullest\n"
        f"  {figures.used_bytes:,} bytes used, {one:,.0f} an image; file {figures.file_bytes:,}, "
        f"map {figures.map_bytes:,}\n"
        f"  format {figures.format}, {counted(figures.readers, 'reader')}"
    )
