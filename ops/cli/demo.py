"""``lookalike demo``: every part of the system once, on a set of photos."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from models.bundle import Bundle
from ops.cli.console import Console, leave, shown, told
from ops.cli.exits import Exit
from ops.cli.follow import first_problems, follow, identity
from ops.cli.options import Command, settings_options
from ops.cli.search import DEFAULT_TIMEOUT_S, ask, record_of, summary
from ops.cli.sheet import write_contact_sheet
from ops.cli.signals import terminable
from ops.cli.site import run_site
from ops.lock import ServerLock
from workers.bundles import find_bundle
from workers.client import Client
from workers.crawl import walk
from workers.decode import image_id_of
from workers.errors import Conflict, NotFound
from workers.options import SearchOptions
from workers.records import Job, JobState, Search
from workers.settings import EMBEDDED_BROKER, Settings

DEMO_DIR = Path(".demo")
HITS = 9

# There are ten windmills among the photos, so that likeness can be judged by eye.
_QUERY = "windmills/windmill-kinderdijk.jpg"


@dataclass
class _Tale:
    """What the demo did and how long each stage took."""

    console: Console
    timings_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = perf_counter()
        yield
        self.timings_s[name] = round(perf_counter() - begin, 3)

    def say(self, name: str, text: str) -> None:
        self.console.note(f"{name:<14}{self.timings_s[name]:8.2f} s   {shown(text)}")


@click.command(cls=Command)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of photos; by default those that come with lookalike.",
)
@click.option("--no-serve", is_flag=True, help="Stop after the contact sheet.")
@click.option(
    "--demo-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEMO_DIR,
    show_default=True,
    help="Where the demo keeps its collections and the contact sheet.",
)
@settings_options("host", "port", "bundle")
@click.pass_obj
def demo(
    console: Console, images: Path | None, no_serve: bool, demo_dir: Path, settings: Settings
) -> None:
    """Take in photos through the queue, search, write a contact sheet, and serve the site.

    Everything runs in this process, on a collection of its own for each folder of photos, below
    the folder .demo; broker and ledger of the settings are not used. A second run takes in only
    what is new.
    """
    folder = (images or _photos()).expanduser().absolute()
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}.", remedy="Name one with --images.")
    tale = _Tale(console)
    with tale.stage("model bundle"):
        bundle = find_bundle(settings)
    tale.say("model bundle", f"{bundle.id}: {bundle.bits} bits, {bundle.dims} features")
    settings = _own(settings, demo_dir.absolute() / _collection_name(folder, bundle), folder)
    with (
        ServerLock(settings.data_dir) as lock,
        Client.open(settings, serve=True) as client,
    ):
        with terminable():
            _show(client, folder, demo_dir / "contact-sheet.png", tale)
        if not no_serve:
            _serve(client, settings, lock, console)


def _show(client: Client, folder: Path, sheet: Path, tale: _Tale) -> None:
    counts = _take_in(client, folder, tale)
    query = _query(client, folder)
    with tale.stage("search"):
        options = SearchOptions(k=HITS)
        answer = ask(client, str(query), options, timeout_s=DEFAULT_TIMEOUT_S)
    tale.say("search", f"with {query.name}, stage by stage:")
    _say_stages(answer, tale.console)
    with tale.stage("contact sheet"):
        write_contact_sheet(client, answer, sheet)
    tale.say("contact sheet", str(sheet))
    record = {
        "images": client.count(),
        "ingest": counts,
        "search": record_of(answer),
        "contact_sheet": sheet.absolute(),
        "timings_s": tale.timings_s,
    }
    tale.console.result(record, f"\n{summary(answer)}\n")


def _take_in(client: Client, folder: Path, tale: _Tale) -> dict[str, Any] | None:
    """Ingest what the collection does not have; return the counts, or None if nothing is new."""
    with tale.stage("photos"):
        paths = list(walk(folder))
        new = [path for path in paths if not _known(client, path)]
    tale.say("photos", f"{len(paths):,} in {folder}, {len(paths) - len(new):,} already taken in")
    if paths and not new:
        return None
    with tale.stage("ingest"):
        job = follow(client, client.ingest_folder(folder), tale.console)
    whole = job.rate_per_s and job.state is not JobState.CANCELLED
    rate = f", {job.rate_per_s:.0f} photos/s" if whole else ""
    tale.say("ingest", f"{identity(job)}{rate}")
    _insist(client, job, tale.console)
    return vars(job.counts)


def _insist(client: Client, job: Job, console: Console) -> None:
    """End the demo if there is nothing to show; tell of single photos that were refused."""
    if job.state is JobState.CANCELLED:
        leave(Exit.INTERRUPTED)
    for item in first_problems(client, job):
        console.note(
            f"  {item.state}: {told(item.problem) if item.problem else shown(item.source)}"
        )
    if job.error is not None:
        console.problem(job.error)
    if not client.count():
        leave(Exit.FAILED)


def _known(client: Client, path: Path) -> bool:
    try:
        client.image(image_id_of(path.read_bytes()))
    except (NotFound, OSError):
        return False
    return True


def _query(client: Client, folder: Path) -> Path:
    """Return the photo to search with: a telling one of ours, or the first that was taken in."""
    telling = folder / _QUERY
    return telling if telling.is_file() else next(p for p in walk(folder) if _known(client, p))


def _say_stages(answer: Search, console: Console) -> None:
    for name, milliseconds in (answer.report or {}).get("timings_ms", {}).items():
        console.note(f"  {name.replace('_', ' '):<14}{milliseconds:8.1f} ms")


def _serve(client: Client, settings: Settings, lock: ServerLock, console: Console) -> None:
    try:
        run_site(client, settings, lock, console)
    except Conflict as error:
        console.note(f"{error.message} A free port is taken instead.")
        run_site(client, replace(settings, port=0), lock, console)


def _own(settings: Settings, data_dir: Path, folder: Path) -> Settings:
    """Return settings that touch nothing of the user's but the cache and one folder of photos."""
    return replace(
        settings,
        data_dir=data_dir,
        broker_url=EMBEDDED_BROKER,
        ledger_url="",
        shards=1,
        folder_roots=(folder,),
    )


def _collection_name(folder: Path, bundle: Bundle) -> str:
    """Return a name that is the same for the same folder and bundle, and different for others."""
    digest = hashlib.sha256(f"{folder} {bundle.id}".encode("utf-8", "surrogateescape"))
    return f"{folder.name[:40]}-{digest.hexdigest()[:8]}"


def _photos() -> Path:
    return Path(str(files("ops"))) / "demo" / "photos"
