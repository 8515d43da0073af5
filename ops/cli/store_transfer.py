"""``lookalike store export`` and ``import``: all images as one file of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from models.progress import progress
from ops.cli.collection import no_collection
from ops.cli.console import Console, leave, shown
from ops.cli.exits import Exit
from ops.cli.options import Command, settings_options
from ops.cli.paths import in_a_folder
from ops.cli.shards import shard_folders, shards_folder
from ops.cli.signals import terminable
from ops.lock import make_data_dir
from ops.wording import counted
from store import Shard, StoreSpec
from store.exporting import export
from store.importing import Imported, import_images
from store.transfer import SUFFIXES
from workers.errors import NotFound
from workers.settings import Settings


def _format(_ctx: click.Context, _param: click.Parameter, file: Path) -> Path:
    if file.suffix not in SUFFIXES:
        raise click.BadParameter(f"{file} is of no known format; name it {' or '.join(SUFFIXES)}.")
    return file


def _target(ctx: click.Context, param: click.Parameter, file: Path) -> Path:
    return in_a_folder(_format(ctx, param, file))


@click.command("export", cls=Command)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), callback=_target)
@click.option(
    "--stored",
    is_flag=True,
    help="Write features as they are stored, bytes and a scale: a quarter of the size.",
)
@settings_options("data_dir")
@click.pass_obj
def export_(console: Console, file: Path, stored: bool, settings: Settings) -> None:
    """Write all images with codes and features to FILE, a .npz or a .parquet.

    Searches and writes go on. Each shard is written as it was at one moment.
    """
    with terminable(), ExitStack() as stack, _bar("exporting") as show:
        folders = shard_folders(settings.data_dir)
        shards = [stack.enter_context(Shard.open_existing(path)) for path in folders]
        done = export(shards, file, stored=stored, progress=show)
    console.result(done, f"{done.path}: {counted(done.images, 'image')}, {done.bytes:,} bytes")


@click.command("import", cls=Command)
@click.argument("file", type=click.Path(path_type=Path), callback=_format)
@settings_options("data_dir")
@click.pass_obj
def import_(console: Console, file: Path, settings: Settings) -> None:
    """Take the images of FILE into the collection, or begin one with them.

    Images that are there stay, and gain sources and labels: importing twice changes nothing.
    """
    if not file.is_file():
        raise NotFound(f"There is no file {file}.", remedy="Check the path.")

    @contextmanager
    def opening(spec: StoreSpec | None) -> Iterator[Sequence[Shard]]:
        with ExitStack() as stack:
            yield [stack.enter_context(shard) for shard in _shards(settings, spec)]

    with terminable(), _bar("importing") as show:
        done = import_images(file, opening, progress=show)
    console.result(done, _told(done))
    leave(Exit.FAILED if done.refused else Exit.DONE)


def _shards(settings: Settings, spec: StoreSpec | None) -> Iterator[Shard]:
    """Open all shards; those that are not there yet get the spec of the file."""
    count = settings.shards
    try:
        first = shard_folders(settings.data_dir)[0]
    except NotFound:
        if spec is None:
            raise no_collection(settings.data_dir) from None
        make_data_dir(settings.data_dir)
    else:
        count = int(first.name.partition("-of-")[2])
        with Shard.open_existing(first) as shard:
            spec = shard.spec
    for index in range(count):
        yield Shard.open(shards_folder(settings.data_dir) / f"{index}-of-{count}", spec)


@contextmanager
def _bar(title: str) -> Iterator[Any]:
    with ExitStack() as stack:
        bars: list[Any] = []

        def show(done: int, of: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress(total=of, title=title)))
            bars[0].update(done - bars[0].n)

        yield show


def _told(done: Imported) -> str:
    counts = f"{done.added:,} added + {done.enriched:,} enriched + {done.unchanged:,} unchanged"
    lines = [f"{done.path}: {counted(done.images, 'image')} = {counts} + {done.refused:,} refused"]
    lines += [f"  {shown(problem)}" for problem in done.problems]
    if done.refused > len(done.problems):
        lines.append(f"  and {done.refused - len(done.problems):,} more")
    return "\n".join(lines)
