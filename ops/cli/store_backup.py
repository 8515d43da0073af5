"""``lookalike store backup`` and ``restore``: copies of all shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from models.progress import progress
from ops.cli.console import Console
from ops.cli.options import Command, settings_options
from ops.cli.paths import in_a_folder, is_there
from ops.cli.shards import shard_folders, shards_folder
from ops.cli.signals import terminable
from ops.lock import make_data_dir
from ops.wording import counted
from store import Shard
from store.backup import BackupReport
from store.backup import backup as copy_shards
from store.restoring import Restored
from store.restoring import restore as restore_shards
from workers.errors import NotFound
from workers.settings import Settings

_MEGABYTE = 1 << 20


@click.command("backup", cls=Command)
@click.argument(
    "target",
    type=click.Path(path_type=Path),
    callback=lambda _ctx, _param, value: in_a_folder(value),
)
@click.option(
    "--verify",
    is_flag=True,
    help="Read files of the backup before again too, which takes longer.",
)
@settings_options("data_dir")
@click.pass_obj
def backup(console: Console, target: Path, verify: bool, settings: Settings) -> None:
    """Copy all shards into the folder TARGET while searches and writes go on.

    What is written is read back and compared. A TARGET that holds an earlier backup of the same
    collection gets what is new, and is a whole backup at every moment. TARGET is made if need
    be, but in a folder that is there.
    """
    with terminable(), ExitStack() as stack, _bars() as show:
        folders = shard_folders(settings.data_dir)
        shards = [stack.enter_context(Shard.open_existing(path)) for path in folders]
        report = copy_shards(shards, target, verify=verify, progress=show)
    console.result(report, _copied(report))


@click.command("restore", cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the shards that are there.")
@settings_options("data_dir")
@click.pass_obj
def restore(console: Console, source: Path, force: bool, settings: Settings) -> None:
    """Put the shards of the backup in SOURCE into the data directory.

    All files are compared with their checksums before anything is replaced.
    """
    if not is_there(source):
        raise NotFound(f"There is no folder {source}.", remedy="Check the path.")
    make_data_dir(settings.data_dir)
    with terminable(), _bars() as show:
        restored = restore_shards(
            source,
            shards_folder(settings.data_dir),
            force=force,
            progress=lambda done, of: show("restoring", done, of),
        )
    console.result(restored, _told(restored))


@contextmanager
def _bars() -> Iterator[Any]:
    """Yield a function that shows how many bytes of something are done."""
    with ExitStack() as stack:
        bars: dict[str, Any] = {}

        def show(name: str, done: int, of: int) -> None:
            if name not in bars:
                bar = progress(total=of // _MEGABYTE, title=name, unit="MB")
                bars[name] = stack.enter_context(bar)
            bars[name].update(done // _MEGABYTE - bars[name].n)

        yield show


def _copied(report: BackupReport) -> str:
    return (
        f"{report.target}: {counted(report.images, 'image')} of bundle {report.bundle}\n"
        f"  {report.bytes:,} bytes in {counted(report.files, 'file')}, of which "
        f"{report.copied_bytes:,} bytes in {counted(report.copied_files, 'file')} are new"
    )


def _told(restored: Restored) -> str:
    return (
        f"{counted(restored.images, 'image')} of bundle {restored.bundle} in "
        f"{counted(restored.shards, 'shard')}, "
        f"as they were at {restored.date}."
    )
