"""``lookalike ingest`` and ``lookalike crawl``: start jobs and follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import click

from ops.cli.console import Console, leave, shown
from ops.cli.exits import Exit
from ops.cli.follow import follow, report
from ops.cli.options import COLLECTION, Command, settings_options
from ops.cli.paths import is_there
from ops.cli.session import opened
from ops.cli.signals import terminable
from workers.client import DEFAULT_CRAWL_DEPTH, DEFAULT_CRAWL_PAGES, Client
from workers.client.checks import checked_labels
from workers.errors import InvalidRequest, NotFound
from workers.records import Job, JobState
from workers.settings import Settings

Start = Callable[[Client], Job]

_no_wait = click.option(
    "--no-wait", is_flag=True, help="Return once the job is queued; needs RabbitMQ."
)


_labels = click.option(
    "--label",
    "labels",
    metavar="NAME",
    multiple=True,
    help="Label the images with this, for filters of searches; may be repeated.",
)


@click.command(cls=Command)
@click.argument("given", metavar="[FOLDER|FILE|URL]...", nargs=-1)
@click.option(
    "--urls-file",
    type=click.File(encoding="utf-8", errors="replace"),
    help="File with a URL on each line; - reads standard input.",
)
@_labels
@_no_wait
@settings_options(*COLLECTION)
@click.pass_obj
def ingest(
    console: Console,
    given: tuple[str, ...],
    urls_file: TextIO | None,
    labels: tuple[str, ...],
    no_wait: bool,
    settings: Settings,
) -> None:
    """Take images into the collection, and watch until all have their outcome.

    Each folder is a job, with everything below it; single files are one more, and URLs too.
    Ctrl-C or SIGTERM cancels the job that is watched; what it has taken in stays. On the embedded
    default the work is done in this process.
    """
    starts = _starts(given, urls_file.readlines() if urls_file else [], checked_labels(labels))
    _run(starts, settings, console, no_wait=no_wait)


@click.command(cls=Command)
@click.argument("seed")
@click.option(
    "--depth",
    type=int,
    default=DEFAULT_CRAWL_DEPTH,
    show_default=True,
    help="Links away from the seed that are followed; 0 is the seed alone.",
)
@click.option(
    "--max-pages",
    type=int,
    default=DEFAULT_CRAWL_PAGES,
    show_default=True,
    help="Most pages to visit.",
)
@_labels
@_no_wait
@settings_options(*COLLECTION)
@click.pass_obj
def crawl(
    console: Console,
    seed: str,
    depth: int,
    max_pages: int,
    labels: tuple[str, ...],
    no_wait: bool,
    settings: Settings,
) -> None:
    """Take in the images that a web site shows, from the page SEED on.

    Only pages of the seed's host are visited, and robots.txt is obeyed.
    """
    _insist_on_range("--depth", depth, 0, settings.crawl_max_depth)
    _insist_on_range("--max-pages", max_pages, 1, settings.crawl_max_pages)

    def start(client: Client) -> Job:
        return client.crawl(seed, max_depth=depth, max_pages=max_pages, labels=labels)

    _run([start], settings, console, no_wait=no_wait)


def is_url(text: str) -> bool:
    """Return whether an argument is meant as a URL."""
    return "://" in text


def _insist_on_range(option: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        told = f"{value} is not in the range {least:,} to {most:,}."
        raise click.BadParameter(told, param_hint=option)


def _starts(given: Sequence[str], listed: Sequence[str], labels: Sequence[str]) -> list[Start]:
    """Return what starts the jobs for all that was given.

    Raises:
        NotFound: A path leads nowhere.
        InvalidRequest: Nothing was given.
    """
    urls = [text for text in given if is_url(text)]
    urls += [line.strip() for line in listed if line.strip() and not line.startswith("#")]
    paths = [_existing(text) for text in given if not is_url(text)]
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if not path.is_dir()]
    starts: list[Start] = [_folder_start(folder, labels) for folder in folders]
    if files:
        starts.append(lambda client: client.ingest_files(files, labels=labels))
    if urls:
        starts.append(lambda client: client.ingest_urls(urls, labels=labels))
    if not starts:
        raise InvalidRequest(
            "There is nothing to take in.", remedy="Name a folder, image files or URLs."
        )
    return starts


def _folder_start(folder: Path, labels: Sequence[str]) -> Start:
    return lambda client: client.ingest_folder(folder, labels=labels)


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if not is_there(path):
        raise NotFound(f"There is no file or folder {text}.", remedy="Check the path.")
    return path


def _run(starts: Sequence[Start], settings: Settings, console: Console, *, no_wait: bool) -> None:
    if no_wait and settings.embedded:
        raise InvalidRequest(
            "Without RabbitMQ the work is done in this process, so it has to wait.",
            remedy="Leave --no-wait out, or set LOOKALIKE_BROKER_URL.",
        )
    with terminable(), opened(settings, console) as client:
        codes = [_one(client, start(client), console, no_wait=no_wait) for start in starts]
    leave(max(codes))


def _one(client: Client, job: Job, console: Console, *, no_wait: bool) -> Exit:
    if no_wait:
        console.result({"job": job}, f"Job {job.id}, {shown(job.label)}: {job.state}")
        return Exit.DONE
    job = follow(client, job, console)
    code = report(client, job, console)
    if job.state is JobState.CANCELLED:
        leave(Exit.INTERRUPTED)
    return code
