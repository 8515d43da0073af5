"""Finding a job's images: walking a folder, or visiting the pages of a site.

A folder is listed in one message. A crawl visits one page a message, so no message is long and a
crawl goes on where it was when its worker dies.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from http.client import HTTP_PORT, HTTPS_PORT
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from workers.dispatch import Dispatcher
from workers.errors import Failed, Rejected, WorkerError
from workers.html import is_image_name, links_of
from workers.ledger import Page, Reference
from workers.records import JobKind, Problem
from workers.references import to_file, to_url
from workers.resources import Resources

_LISTING_BATCH = 500
_MAX_PAGE_BYTES = 8 << 20
_HTML_TYPES = ("text/html", "application/xhtml+xml", "")


def step(resources: Resources, dispatcher: Dispatcher, job_id: str) -> None:
    """Work off one message: the next step of a job's listing."""
    job = resources.ledger.jobs.get(job_id)
    if job is None or job.listing_done or not job.state.open:
        return
    if job.kind is JobKind.FOLDER:
        _list_folder(resources, dispatcher, job_id)
    else:
        _visit_next(resources, dispatcher, job_id)


def walk(folder: Path) -> Iterator[Path]:
    """Yield the image files below a folder, by their names, in a stable order.

    Hidden files and folders are passed over, and links to folders are not followed. A folder that
    cannot be read is yielded itself, so that it shows up among the failures.
    """
    unreadable: list[Path] = []
    tree = os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename)))
    for parent, folders, names in tree:
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and is_image_name(name):
                yield Path(parent, name)
    yield from unreadable


def _list_folder(resources: Resources, dispatcher: Dispatcher, job_id: str) -> None:
    ledger = resources.ledger
    folder = Path(ledger.jobs.params(job_id)["path"])
    if not folder.is_dir():
        ledger.jobs.finish_listing(job_id, Problem.of(no_such_folder(folder)))
        return
    found = walk(folder)
    while batch := [to_file(path) for path in islice(found, _LISTING_BATCH)]:
        ledger.items.add(job_id, batch)
        if ledger.jobs.cancelled(job_id):
            return
        dispatcher.pump(job_id)
    job = ledger.jobs.get(job_id)
    empty = job is not None and not job.counts.submitted
    ledger.jobs.finish_listing(job_id, _no_images(folder) if empty else None)


def no_such_folder(folder: Path) -> Rejected:
    """Return the error for a folder that is not there."""
    return Rejected(
        f"There is no folder {folder} on the machine of the workers.",
        remedy="Check the path.",
        code="no_such_folder",
    )


def _no_images(folder: Path) -> Problem:
    return Problem(
        "no_images",
        f"{folder} holds no images.",
        "Files are found by their names, such as .jpg, .png or .webp.",
    )


def _visit_next(resources: Resources, dispatcher: Dispatcher, job_id: str) -> None:
    ledger = resources.ledger
    page = ledger.pages.next(job_id)
    if page is None:
        ledger.jobs.finish_listing(job_id, ledger.pages.problem_of_seed(job_id))
        return
    try:
        _give_up_if_hopeless(page, resources.settings.max_attempts)
        _visit(resources, page)
    except WorkerError as error:
        ledger.pages.finish(page.id, Problem.of(error))
    else:
        ledger.pages.finish(page.id)
    dispatcher.pump(job_id)
    dispatcher.listing(job_id)


def _visit(resources: Resources, page: Page) -> None:
    """Fetch a page and write down what it leads to."""
    ledger, robots = resources.ledger, resources.robots
    robots.check(page.url)
    robots.wait_turn(page.url)
    sink = io.BytesIO()
    fetched = resources.fetcher.fetch(page.url, sink, max_bytes=_MAX_PAGE_BYTES)
    if not _same_site(fetched.url, page.url):
        raise Failed(
            f"{page.url} leads to another site, {fetched.url}.",
            remedy="Crawl that address if it is meant.",
            code="other_site",
        )
    robots.check(fetched.url)
    if fetched.media_type.startswith("image/"):
        ledger.items.add(page.job_id, [to_url(page.url)])
        return
    if fetched.media_type not in _HTML_TYPES:
        raise Rejected(
            f"{page.url} is {fetched.media_type}, not a page.",
            remedy="Begin at a web page.",
            code="not_a_page",
        )
    links = links_of(sink.getvalue(), fetched.url)
    params = ledger.jobs.params(page.job_id)
    ledger.items.add(page.job_id, list(_allowed(resources, links.images)))
    if page.depth < params["max_depth"]:
        inside = [url for url in links.pages if _same_site(url, page.url)]
        ledger.pages.add(page.job_id, inside, depth=page.depth + 1, max_pages=params["max_pages"])


def _allowed(resources: Resources, urls: list[str]) -> Iterator[Reference]:
    for url in urls:
        try:
            resources.robots.check(url)
        except WorkerError:
            # Closed to robots, or its site does not say: then it is none of our business.
            continue
        yield to_url(url)


def _same_site(url: str, other: str) -> bool:
    return _host(url) == _host(other)


def _host(url: str) -> tuple[str | None, int | None]:
    """Return host and port; the usual ports count as one, since sites move from one to the other.

    A URL that is none has no host.
    """
    try:
        parts = urlsplit(url)
        return parts.hostname, None if parts.port in (HTTP_PORT, HTTPS_PORT) else parts.port
    except ValueError:
        return None, None


def _give_up_if_hopeless(page: Page, max_attempts: int) -> None:
    if page.attempts > max_attempts:
        raise Failed(
            f"{page.url} was taken up {page.attempts - 1} times and its worker died each time.",
            remedy="Leave the page out; please report it if it opens in a browser.",
            code="worker_died",
        )
