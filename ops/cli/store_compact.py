"""``lookalike store compact``: give back the disk space of deleted images."""

from __future__ import annotations

import click

from ops.cli.console import Console
from ops.cli.options import Command, settings_options
from ops.cli.shards import shard_folders
from ops.cli.signals import terminable
from ops.wording import counted
from store import Shard
from store.compaction import DEAD_SHARE, Compacted
from workers.settings import Settings


@click.command("compact", cls=Command)
@click.option(
    "--dead",
    type=click.FloatRange(0, 1),
    default=DEAD_SHARE,
    show_default=True,
    help="Compact the files of which at least this share belongs to deleted images.",
)
@click.option("--all", "everything", is_flag=True, help="Compact every file with a deleted image.")
@settings_options("data_dir")
@click.pass_obj
def compact(console: Console, dead: float, everything: bool, settings: Settings) -> None:
    """Give the disk space of deleted images back, while searches and writes go on.

    A file holds 65,536 images; the last one of each shard, which is added to, stays as it is.
    """
    share = 0.0 if everything else dead
    with terminable():
        for path in shard_folders(settings.data_dir):
            with Shard.open_existing(path) as shard:
                done = shard.compact(
                    dead_share=share, progress=lambda one: console.note(_told(one))
                )
                stats = shard.stats()
            freed = sum(each.freed_bytes for each in done)
            record = {
                "path": path,
                "segments": len(done),
                "freed_bytes": freed,
                "dead_slots": stats.dead_slots,
                "file_bytes": stats.file_bytes,
            }
            console.result(
                record,
                f"{path}: {len(done):,} of {counted(stats.segments, 'file')} compacted, {freed:,} "
                f"bytes freed; space of {counted(stats.dead_slots, 'deleted image')} is left"
                + (", which the last file, still added to, keeps." if everything else "."),
            )


def _told(one: Compacted) -> str:
    return f"  file {one.segment}: {counted(one.slots, 'image')}, {one.freed_bytes:,} bytes freed"
