"""`lookalike bench`: the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ops.bench.machine import cores
from ops.bench.search_names import BLOCK, DEFAULT_STAGES, QUERIES, STAGES
from ops.cli.console import Console
from ops.cli.options import Group
from workers.searching import DEFAULT_EFFORT, DEFAULT_K, MAX_EFFORT, MIN_EFFORT

Function = Callable[..., Any]

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_POSITIVE = click.IntRange(min=1)

_images = click.option(
    "--images", type=_FOLDER, help="Folder of photos; default: variants of the demo photos."
)
_effort = click.option(
    "--effort",
    type=click.IntRange(MIN_EFFORT, MAX_EFFORT),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="Time against recall.",
)


def _numbers(_context: click.Context, _parameter: click.Parameter, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter("give numbers separated by commas, such as 1,16") from error
    if min(numbers) < 1:
        raise click.BadParameter("the numbers must be at least 1")
    return numbers


def _names(_context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in STAGES:
            raise click.BadParameter(f"there is no {name!r}; choose of {', '.join(STAGES)}")
    return names


def _list(default: str) -> dict[str, Any]:
    return {"default": default, "show_default": True, "callback": _numbers, "metavar": "N,N,..."}


def _count(name: str, default: int, text: str) -> Callable[[Function], Function]:
    return click.option(name, type=_POSITIVE, default=default, show_default=True, help=text)


@click.group(cls=Group)
def bench() -> None:
    """Measure how fast this machine is.

    Each benchmark starts what it needs, with a data directory of its own that it deletes. Figures
    go to standard output, everything else to standard error.
    """


@bench.command()
@_images
@_count("--photos", 128, "Images to take.")
@click.option("--batches", **_list("1,16,64"), help="Images at once.")
@click.option("--threads", **_list(",".join(map(str, sorted({1, cores()})))), help="Threads.")
@_count("--rounds", 2, "Times that the images go through the network.")
@click.pass_obj
def extract(console: Console, /, **plan: Any) -> None:
    """Time of decoding, preprocessing and the network, per image."""
    from ops.bench.extract import Plan, bench_extract

    bench_extract(Plan(**plan), console)


@bench.command()
@click.option("--bundle", help="Name or directory; by default CaffeNet with random weights.")
@click.option("--batches", **_list("1,64"), help="Images at once.")
@click.option("--threads", **_list(",".join(map(str, sorted({1, cores()})))), help="Threads.")
@_count("--rounds", 5, "Times that the engines take turns.")
@click.pass_obj
def engines(console: Console, /, **plan: Any) -> None:
    """ONNX Runtime, real Caffe and the network in 8-bit integers, in turns on one network."""
    from ops.bench.engines import Plan, bench_engines

    bench_engines(Plan(**plan), console)


@bench.command()
@_images
@_count("--photos", 1_000, "Variants of the demo photos to make.")
@_count("--warm-up", 256, "Images to take in before the clock runs.")
@_count("--rounds", 3, "Times that ingest and the bare loop take turns.")
@click.option(
    "--broker",
    type=click.Choice(["rabbitmq", "embedded"]),
    default="rabbitmq",
    show_default=True,
    help="RabbitMQ with worker processes, or everything in one process.",
)
@click.pass_obj
def ingest(console: Console, /, **plan: Any) -> None:
    """Images per second from file to committed, against a bare loop over the same files."""
    from ops.bench.ingest import Plan, bench_ingest

    bench_ingest(Plan(**plan), console)


@bench.command()
@click.option("--n", **_list("250000"), help="Stored images.")
@click.option("--bits", **_list("128"), help="Lengths of the codes.")
@_count("--dims", 4_096, "Length of the features.")
@click.option("--features", type=_FILE, help="Real features and codes, as .npz, in their place.")
@click.option(
    "--batch",
    type=click.IntRange(1, BLOCK),
    default=BLOCK,
    show_default=True,
    help="Images of a commit while a store is filled.",
)
@click.option(
    "--queries",
    type=click.IntRange(1, QUERIES),
    default=100,
    show_default=True,
    help="Searches of each way.",
)
@_count("--k", 1_000, "Hits.")
@click.option("--efforts", **_list("4,5,6"), help="Efforts to try.")
@click.option(
    "--stages",
    default=",".join(DEFAULT_STAGES),
    show_default=True,
    callback=_names,
    metavar="NAME,NAME,...",
    help=f"What to measure: {', '.join(STAGES)}.",
)
@click.option("--peers/--no-peers", default=True, show_default=True, help="Measure faiss too.")
@_count("--peers-n", 20_000, "Images on which indexes of floats are measured.")
@_count("--rounds", 5, "Times that the ways take turns.")
@click.option(
    "--plot",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write curves to, as PNG.",
)
@click.pass_obj
def search(console: Console, /, **plan: Any) -> None:
    """The store alone and its peers: time, recall and memory, one object per way to search.

    The images are made up, unless they are given. What is built is kept in the cache folder.
    """
    from ops.bench.search import Plan, bench_search

    bench_search(Plan(**plan), console)


@bench.command()
@_images
@_count("--photos", 1_000, "Variants of the demo photos to make.")
@_count("--queries", 200, "Searches to measure.")
@_count("--warm-up", 20, "Searches before them.")
@_count("--k", DEFAULT_K, "Hits.")
@_effort
@click.pass_obj
def e2e(console: Console, /, **plan: Any) -> None:
    """What a user waits for: post a photo, get the result, over HTTP and RabbitMQ."""
    from ops.bench.e2e import Plan, bench_e2e

    bench_e2e(Plan(**plan), console)


@bench.command()
@_images
@_count("--photos", 1_000, "Variants of the demo photos to make.")
@_count("--queries", 1_000, "Photos to alter and search with.")
@_effort
@click.pass_obj
def copies(console: Console, /, **plan: Any) -> None:
    """Whether copies at half size, of quality 40, or cropped by a tenth find their originals."""
    from ops.bench.copies import Plan, bench_copies

    bench_copies(Plan(**plan), console)
