"""``lookalike store``: figures and checks of the shards on disk, without the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ops.cli.collection import no_collection
from ops.cli.console import Console, leave, plain
from ops.cli.exits import Exit
from ops.cli.options import Group, settings_options
from store import Shard, ShardStats
from workers.settings import Settings


@click.group(cls=Group)
def store() -> None:
    """Figures and checks of the store on disk."""


@store.command("stats")
@settings_options("data_dir")
@click.pass_obj
def stats(console: Console, settings: Settings) -> None:
    """Print figures about each shard: images, buckets, bytes."""
    for path in _shards(settings):
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
    for path in _shards(settings):
        with Shard.open_existing(path) as shard:
            report = shard.check()
        whole = whole and report.ok
        record = {"path": path, "ok": report.ok, **plain(report)}
        verdict = "nothing is wrong" if report.ok else f"{len(report.problems):,} problems"
        lines = [f"{path}: {report.images:,} images, {verdict}."]
        console.result(record, "\n".join([*lines, *(f"  {each}" for each in report.problems)]))
    leave(Exit.DONE if whole else Exit.FAILED)


def shard_paths(data_dir: Path) -> list[Path]:
    """Return the folders of a collection's shards, in order."""
    return sorted((data_dir / "shards").glob("*-of-*"))


def _shards(settings: Settings) -> Iterator[Path]:
    paths = shard_paths(settings.data_dir)
    if not paths:
        raise no_collection(settings.data_dir)
    yield from paths


def _told(figures: ShardStats) -> str:
    one = figures.used_bytes / max(figures.images, 1)
    return (
        f"{figures.path}: {figures.images:,} images, bundle {figures.bundle_id}\n"
        f"  {figures.bits} bits, {figures.dims} dimensions, {figures.metric}\n"
        f"  {figures.buckets:,} buckets, {figures.largest_bucket:,} images in the fullest\n"
        f"  {figures.used_bytes:,} bytes used, {one:,.0f} an image; file {figures.file_bytes:,}, "
        f"map {figures.map_bytes:,}\n"
        f"  format {figures.format}, {figures.readers} readers"
    )
