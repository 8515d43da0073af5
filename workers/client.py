"""The one way in for the site and the command line: searches, jobs and the collection."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

from PIL import Image as PillowImage

from store import Image
from workers.app import make_app
from workers.crawl import no_such_folder
from workers.decode import ID_BYTES, image_id_of, read_file
from workers.dispatch import Dispatcher
from workers.embedded import EmbeddedWorkers
from workers.errors import InvalidRequest, NotFound, Unavailable, WorkerError
from workers.fetch import check_url
from workers.files import empty_file
from workers.housekeeping import Housekeeper
from workers.ledger import NewJob, NewSearch, Reference
from workers.records import Item, ItemState, Job, JobKind, Problem, Search, SearchState
from workers.references import to_file, to_upload, to_url
from workers.resources import Resources
from workers.searching import DEFAULT_EFFORT, DEFAULT_K, MAX_EFFORT, MIN_EFFORT
from workers.settings import Settings
from workers.shards import Recent
from workers.tasks import app_for

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_CRAWL_DEPTH = 2
DEFAULT_CRAWL_PAGES = 100

_ADD_BATCH = 1_000
_LABEL_CHARS = 200
_FIRST_PAUSE_S = 0.002
_LAST_PAUSE_S = 0.1


class Client:
    """Searches, jobs and the collection; safe to share between threads; a context manager.

    Args:
        resources: The parts of this process.
        dispatcher: The way to the queues.
        trusted: Whether any folder may be ingested, as from the command line; otherwise only
            those below the setting ``folder_roots``.
    """

    def __init__(self, resources: Resources, dispatcher: Dispatcher, *, trusted: bool) -> None:
        self.settings = resources.settings
        self._resources = resources
        self._ledger = resources.ledger
        self._files = resources.files
        self._dispatcher = dispatcher
        self._trusted = trusted
        self._closers: list[Callable[[], None]] = [resources.close]

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        trusted: bool = False,
        serve: bool = False,
        workers: bool = True,
    ) -> Client:
        """Open a client; with the embedded broker its workers start in this process.

        Args:
            settings: Everything that can be set.
            trusted: See the class.
            serve: Whether this process looks after the collection: it sends again what an earlier
                one left unfinished, and sweeps.
            workers: Whether embedded workers start; whoever only looks needs none.

        Raises:
            WorkerError: A setting, the model bundle, the store or the ledger cannot be used.
        """
        with ExitStack() as undo:
            resources = undo.enter_context(Resources(settings, decoders=settings.decoders))
            dispatcher = Dispatcher(make_app(settings), resources.ledger, settings)
            client = cls(resources, dispatcher, trusted=trusted)
            undo.callback(client.close)
            if settings.embedded and workers:
                client._embed(EmbeddedWorkers(lambda: app_for(resources)), serve=serve)
                if serve:
                    resources.warm_up()
            if serve:
                client._keep_house()
            undo.pop_all()
        return client

    def close(self) -> None:
        """Stop sweeping, let embedded workers finish, close the store and the ledger, in turn."""
        while self._closers:
            self._closers.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- searches ----------------------------------------------------------------------------

    def submit_search(
        self,
        *,
        upload: tuple[str, BinaryIO] | None = None,
        url: str | None = None,
        image_id: str | None = None,
        k: int = DEFAULT_K,
        effort: int = DEFAULT_EFFORT,
    ) -> Search:
        """Queue a search for images that look like one; exactly one image is to be given.

        Args:
            upload: A file's name, only to be shown, and its bytes.
            url: Address of an image.
            image_id: A stored image.
            k: Number of hits.
            effort: 1 to 10, time against recall.

        Returns:
            The search, with the ticket to ask for it again.

        Raises:
            InvalidRequest: An argument is out of range, or not exactly one image is given.
            Rejected: The file is empty or too large, or the URL is none.
            NotFound: There is no such stored image.
            Unavailable: The broker does not answer, or too many searches wait.
        """
        _check_range("k", k, 1, self.settings.max_k)
        _check_range("effort", effort, MIN_EFFORT, MAX_EFFORT)
        if sum(given is not None for given in (upload, url, image_id)) != 1:
            raise InvalidRequest(
                "A search takes exactly one of an image file, a URL and an image id.",
                remedy="Give one of them.",
            )
        self._check_room()
        query, ref = self._query(upload, url, image_id)
        new = NewSearch(query, ref, k, effort)
        ticket = self._ledger.searches.create(new, keep_s=self.settings.result_hours * 3600)
        try:
            self._dispatcher.search(ticket)
        except Unavailable as error:
            self._ledger.searches.finish(ticket, SearchState.FAILED, problem=Problem.of(error))
            raise
        return self.search(ticket)

    def search(self, ticket: str) -> Search:
        """Return a search as it stands; its state is ``unknown`` if there is no such ticket."""
        return self._ledger.searches.get(ticket)

    def wait_search(self, ticket: str, timeout_s: float) -> Search:
        """Return a search when it is over, or as it stands after the time is up."""
        _wait_while(lambda: self._ledger.searches.is_open(ticket), timeout_s)
        return self.search(ticket)

    def cancel_search(self, ticket: str) -> Search:
        """Cancel a search that is not over yet, and return it."""
        self._ledger.searches.finish(ticket, SearchState.CANCELLED)
        return self.search(ticket)

    def query_thumbnail(self, ticket: str) -> Path:
        """Return the thumbnail of a search's query image.

        Raises:
            NotFound: There is none: the query was a stored image, or the result has expired.
        """
        return _existing(self._files.query_thumbnail(ticket), "thumbnail of this query")

    # -- jobs --------------------------------------------------------------------------------

    def ingest_folder(self, path: Path, *, label: str | None = None) -> Job:
        """Start a job that takes in all images below a folder.

        Raises:
            InvalidRequest: The folder is outside those that the site may ingest.
            Rejected: There is no such folder.
        """
        folder = path.expanduser().absolute()
        self._check_folder(folder)
        new = NewJob(JobKind.FOLDER, label or str(folder), params={"path": str(folder)})
        return self._start(self._ledger.jobs.create(new))

    def ingest_files(self, paths: Sequence[Path], *, label: str | None = None) -> Job:
        """Start a job that takes in image files where they are. Bad ones become rejected items.

        Raises:
            InvalidRequest: There are none, too many, or one is outside the folders that the site
                may ingest.
        """
        files = [path.expanduser().absolute() for path in paths]
        for folder in {file.parent for file in files}:
            self._check_allowed(folder)
        self._check_items(files, "file")
        new = NewJob(JobKind.FOLDER, label or _files_label([file.name for file in files]))
        return self._start_listed(new, [to_file(file) for file in files])

    def ingest_urls(self, urls: Sequence[str], *, label: str | None = None) -> Job:
        """Start a job that takes in images by their URLs. Bad ones become rejected items.

        Raises:
            InvalidRequest: There are none, or too many.
        """
        references = [to_url(url.strip()) for url in urls if url.strip()]
        self._check_items(references, "URL")
        new = NewJob(JobKind.URLS, label or f"{len(references)} URLs")
        return self._start_listed(new, references)

    def ingest_uploads(
        self, uploads: Sequence[tuple[str, BinaryIO]], *, label: str | None = None
    ) -> Job:
        """Start a job that takes in uploaded files; it goes ahead of bulk work.

        Args:
            uploads: Names, only to be shown, and bytes. Bad files become rejected items.

        Raises:
            InvalidRequest: There are none, or too many.
            TooLarge: A file has more bytes than a whole request may have.
        """
        self._check_items(uploads, "file")
        max_bytes = self.settings.max_upload_bytes
        references = [
            to_upload(self._files.spool(stream, max_bytes=max_bytes, label=name), name)
            for name, stream in uploads
        ]
        new = NewJob(
            JobKind.UPLOAD, label or _files_label([name for name, _ in uploads]), live=True
        )
        return self._start_listed(new, references)

    def crawl(
        self,
        seed: str,
        *,
        max_depth: int = DEFAULT_CRAWL_DEPTH,
        max_pages: int = DEFAULT_CRAWL_PAGES,
        label: str | None = None,
    ) -> Job:
        """Start a job that visits a site from a seed page and takes in the images it shows.

        Args:
            seed: Address of the first page; only pages of its host are visited.
            max_depth: Links away from the seed that are followed; 0 is the seed alone.
            max_pages: Most pages to visit.

        Raises:
            Rejected: The seed is not a URL.
            InvalidRequest: A limit is out of range.
        """
        check_url(seed)
        _check_range("max_depth", max_depth, 0, self.settings.crawl_max_depth)
        _check_range("max_pages", max_pages, 1, self.settings.crawl_max_pages)
        params = {"seed": seed, "max_depth": max_depth, "max_pages": max_pages}
        job_id = self._ledger.jobs.create(NewJob(JobKind.CRAWL, label or seed, params=params))
        self._ledger.pages.add(job_id, [seed], depth=0, max_pages=1)
        return self._start(job_id)

    def job(self, job_id: str) -> Job:
        """Return a job with its counts.

        Raises:
            NotFound: There is none.
        """
        job = self._ledger.jobs.get(job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id[:40]!r}.", remedy="See the list of jobs.")
        return job

    def jobs(self, limit: int = 50, before: str | None = None) -> list[Job]:
        """Return jobs, the newest first; ``before`` is the last job of the page before."""
        return self._ledger.jobs.latest(limit=limit, before=before)

    def wait_job(self, job_id: str, timeout_s: float) -> Job:
        """Return a job when it is over, or as it stands after the time is up.

        Raises:
            NotFound: There is none.
        """
        _wait_while(lambda: self.job(job_id).state.open, timeout_s)
        return self.job(job_id)

    def items(
        self, job_id: str, *, state: ItemState | None = None, limit: int = 100, after: int = 0
    ) -> list[Item]:
        """Return items of a job in their order; ``after`` is the last one of the page before.

        Raises:
            NotFound: There is no such job.
        """
        self.job(job_id)
        return self._ledger.items.page(job_id, state=state, limit=limit, after=after)

    def cancel_job(self, job_id: str) -> Job:
        """Cancel what a job has not begun, and return it. What is under way comes to its end.

        Raises:
            NotFound: There is none.
        """
        self.job(job_id)
        self._ledger.jobs.cancel(job_id)
        return self.job(job_id)

    # -- the collection ----------------------------------------------------------------------

    def count(self) -> int:
        """Return how many images there are."""
        return self._resources.shards.images()

    def recent(self, limit: int = 50, before: str | None = None) -> Recent:
        """Return a page of the latest images; ``before`` is the ``next`` of the page before.

        Raises:
            InvalidRequest: ``before`` is no such value.
        """
        return self._resources.shards.recent(limit, before)

    def image(self, image_id: str) -> Image:
        """Return an image's record.

        Raises:
            NotFound: There is none.
        """
        image = self._resources.shards.get(image_id) if _is_image_id(image_id) else None
        if image is None:
            raise NotFound(
                f"There is no image {image_id[:40]!r}.", remedy="It may have been deleted."
            )
        return image

    def delete_image(self, image_id: str) -> None:
        """Delete an image; the next search does not find it.

        Raises:
            NotFound: There is none.
        """
        self.image(image_id)
        self._resources.shards.delete([image_id])
        self._files.drop(self._files.thumbnail(image_id))
        self._files.drop(self._files.original(image_id))

    def thumbnail(self, image_id: str) -> Path:
        """Return an image's thumbnail, a JPEG.

        Raises:
            NotFound: There is none.
        """
        self.image(image_id)
        return _existing(self._files.thumbnail(image_id), f"thumbnail of {image_id}")

    def original(self, image_id: str) -> tuple[Path, str]:
        """Return the file that an image was taken from, and its media type.

        Only bytes that still have the image's hash are handed out, so a file that was replaced
        since, by whatever, stays private.

        Raises:
            NotFound: It is not on this machine, or not the same any more.
        """
        image = self.image(image_id)
        media_type = PillowImage.MIME.get(image.format, "application/octet-stream")
        kept = self._files.original(image_id)
        for path in (kept, *(Path(source) for source in image.sources if source.startswith("/"))):
            if _holds(path, image_id, self.settings.max_image_bytes):
                return path, media_type
        raise NotFound(
            f"The original of {image_id} is not on this machine.",
            remedy="Follow its source instead.",
        )

    def status(self) -> dict[str, Any]:
        """Return how things stand: bundle, images, broker, open work."""
        bundle = self._resources.bundle
        return {
            "bundle": bundle.id,
            "bits": bundle.bits,
            "dims": bundle.dims,
            "metric": bundle.metric,
            "images": self.count(),
            "shards": self.settings.shards,
            "broker": "embedded" if self.settings.embedded else "rabbitmq",
            "ledger": self._ledger.database.dialect,
            "queued_searches": self._ledger.searches.queued(),
            "open_jobs": len(self._ledger.jobs.open_ids()),
        }

    # -- inside ------------------------------------------------------------------------------

    def _embed(self, workers: EmbeddedWorkers, *, serve: bool) -> None:
        workers.start()
        self._closers.append(workers.close)
        if serve:
            # The queue that held these ended with the process that had it.
            self._ledger.items.recall()

    def _keep_house(self) -> None:
        keeper = Housekeeper(self._dispatcher, self._ledger, self._files, self.settings)
        keeper.start()
        self._closers.append(keeper.close)

    def _check_room(self) -> None:
        if self._ledger.searches.queued() >= self.settings.max_queued_searches:
            raise Unavailable(
                "Too many searches wait already.",
                remedy="Try again in a moment, or start more workers.",
                code="busy",
            )

    def _query(
        self, upload: tuple[str, BinaryIO] | None, url: str | None, image_id: str | None
    ) -> tuple[dict[str, str], str]:
        """Return what the query is called and where it can be had."""
        if image_id is not None:
            self.image(image_id)
            return {
                "kind": "image",
                "label": image_id,
                "image_id": image_id,
            }, f"image:{image_id}"
        if url is not None:
            check_url(url)
            return {"kind": "url", "label": url}, url
        name, stream = upload or ("", io.BytesIO())
        limit = self.settings.max_image_bytes
        spooled = self._files.spool(stream, max_bytes=limit, label=name)
        if not self._files.spooled(spooled).stat().st_size:
            self._files.drop(self._files.spooled(spooled))
            raise empty_file(name)
        return {"kind": "upload", "label": name[:_LABEL_CHARS]}, f"spool:{spooled}"

    def _check_folder(self, folder: Path) -> None:
        self._check_allowed(folder)
        if not folder.is_dir():
            raise no_such_folder(folder)

    def _check_allowed(self, folder: Path) -> None:
        roots = [root.expanduser().resolve() for root in self.settings.folder_roots]
        if not self._trusted and not any(folder.resolve().is_relative_to(root) for root in roots):
            raise InvalidRequest(
                f"The site may not ingest {folder}.",
                remedy="Add the folder, or one above it, to LOOKALIKE_FOLDER_ROOTS, "
                "or use `lookalike ingest`.",
                code="folder_not_allowed",
            )

    def _check_items(self, given: Sequence[object], what: str) -> None:
        if not given:
            raise InvalidRequest(f"There is no {what} to take in.", remedy="Give at least one.")
        if len(given) > self.settings.max_job_items:
            raise InvalidRequest(
                f"{len(given):,} are too many for one request; "
                f"at most {self.settings.max_job_items:,} are taken.",
                remedy="Split them into several jobs.",
            )

    def _start_listed(self, new: NewJob, references: Sequence[Reference]) -> Job:
        """Start a job whose items are all known."""
        job_id = self._ledger.jobs.create(new)
        for first in range(0, len(references), _ADD_BATCH):
            self._ledger.items.add(job_id, references[first : first + _ADD_BATCH])
        self._ledger.jobs.finish_listing(job_id)
        return self._send(job_id, self._dispatcher.pump)

    def _start(self, job_id: str) -> Job:
        """Start a job whose items are to be listed."""
        return self._send(job_id, self._dispatcher.listing)

    def _send(self, job_id: str, send: Callable[[str], None]) -> Job:
        try:
            send(job_id)
        except Unavailable as error:
            logger.warning("Job %s waits in the ledger for the broker: %s", job_id, error)
        return self.job(job_id)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(
            f"{name} is {value}.", remedy=f"It must be from {low} to {high:,}.", code=f"bad_{name}"
        )


def _wait_while(unfinished: Callable[[], bool], timeout_s: float) -> None:
    """Ask again and again, more and more slowly: most searches are over in a blink."""
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while unfinished() and (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.2, _LAST_PAUSE_S)


def _is_image_id(text: str) -> bool:
    return len(text) == 2 * ID_BYTES and all(char in "0123456789abcdef" for char in text)


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise NotFound(f"There is no {what}.")
    return path


def _holds(path: Path, image_id: str, max_bytes: int) -> bool:
    """Return whether a file's bytes are those of an image."""
    try:
        data = read_file(path, max_bytes=max_bytes, label=str(path))
    except WorkerError:
        return False
    return image_id_of(data) == image_id


def _files_label(names: Sequence[str]) -> str:
    first = names[0][:_LABEL_CHARS]
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"
