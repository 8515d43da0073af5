"""Starting jobs, watching them, and asking what became of their items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from workers.client.checks import checked_labels
from workers.client.parts import LABEL_CHARS, Parts, check_range, wait_while
from workers.crawl import no_such_folder
from workers.errors import InvalidRequest, NotFound, Unavailable
from workers.fetch import check_url
from workers.ledger import NewJob, Reference
from workers.records import Item, ItemState, Job, JobKind, Problem
from workers.references import to_file, to_upload, to_url

logger = logging.getLogger(__name__)

DEFAULT_CRAWL_DEPTH = 2
DEFAULT_CRAWL_PAGES = 100

_ADD_BATCH = 1_000


class JobCalls(Parts):
    """Jobs from folders, files, URLs, uploads and crawls."""

    def ingest_folder(
        self, path: Path, *, label: str | None = None, labels: Sequence[str] = ()
    ) -> Job:
        """Start a job that takes in all images below a folder.

        Args:
            path: The folder.
            label: What the job is called.
            labels: What its images are labelled with.

        Raises:
            InvalidRequest: The folder is outside those that the site may ingest, or a label
                cannot be one.
            Rejected: There is no such folder.
        """
        folder = path.expanduser().absolute()
        self._check_folder(folder)
        new = NewJob(
            JobKind.FOLDER,
            label or str(folder),
            params={"path": str(folder)},
            labels=checked_labels(labels),
        )
        return self._start(self._ledger.jobs.create(new))

    def ingest_files(
        self, paths: Sequence[Path], *, label: str | None = None, labels: Sequence[str] = ()
    ) -> Job:
        """Start a job that takes in image files where they are. Bad ones become rejected items.

        Raises:
            InvalidRequest: There are none, too many, or one is outside the folders that the site
                may ingest; or a label cannot be one.
        """
        files = [path.expanduser().absolute() for path in paths]
        for folder in {file.parent for file in files}:
            self._check_allowed(folder)
        self._check_items(files, "file")
        new = NewJob(
            JobKind.FOLDER,
            label or _files_label([file.name for file in files]),
            labels=checked_labels(labels),
        )
        return self._start_listed(new, [to_file(file) for file in files])

    def ingest_urls(
        self, urls: Sequence[str], *, label: str | None = None, labels: Sequence[str] = ()
    ) -> Job:
        """Start a job that takes in images by their URLs. Bad ones become rejected items.

        Raises:
            InvalidRequest: There are none, or too many, or a label cannot be one.
        """
        references = [to_url(url.strip()) for url in urls if url.strip()]
        self._check_items(references, "URL")
        new = NewJob(
            JobKind.URLS, label or f"{len(references)} URLs", labels=checked_labels(labels)
        )
        return self._start_listed(new, references)

    def ingest_uploads(
        self,
        uploads: Sequence[tuple[str, BinaryIO]],
        *,
        label: str | None = None,
        labels: Sequence[str] = (),
    ) -> Job:
        """Start a job that takes in uploaded files; it goes ahead of bulk work.

        Args:
            uploads: Names, only to be shown, and bytes. Bad files become rejected items.
            label: What the job is called.
            labels: What its images are labelled with.

        Raises:
            InvalidRequest: There are none, or too many, or a label cannot be one.
            TooLarge: A file has more bytes than a whole request may have.
        """
        self._check_items(uploads, "file")
        tidy = checked_labels(labels)
        max_bytes = self.settings.max_upload_bytes
        references = [
            to_upload(self._files.spool(stream, max_bytes=max_bytes, label=name), name)
            for name, stream in uploads
        ]
        new = NewJob(
            JobKind.UPLOAD,
            label or _files_label([name for name, _ in uploads]),
            live=True,
            labels=tidy,
        )
        return self._start_listed(new, references)

    def crawl(
        self,
        seed: str,
        *,
        max_depth: int = DEFAULT_CRAWL_DEPTH,
        max_pages: int = DEFAULT_CRAWL_PAGES,
        label: str | None = None,
        labels: Sequence[str] = (),
    ) -> Job:
        """Start a job that visits a site from a seed page and takes in the images it shows.

        Args:
            seed: Address of the first page; only pages of its host are visited.
            max_depth: Links away from the seed that are followed; 0 is the seed alone.
            max_pages: Most pages to visit.
            label: What the job is called.
            labels: What its images are labelled with.

        Raises:
            Rejected: The seed is not a URL.
            InvalidRequest: A limit is out of range, or a label cannot be one.
        """
        check_url(seed)
        check_range("max_depth", max_depth, 0, self.settings.crawl_max_depth)
        check_range("max_pages", max_pages, 1, self.settings.crawl_max_pages)
        params = {"seed": seed, "max_depth": max_depth, "max_pages": max_pages}
        new = NewJob(JobKind.CRAWL, label or seed, params=params, labels=checked_labels(labels))
        job_id = self._ledger.jobs.create(new)
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
        wait_while(lambda: self.job(job_id).state.open, timeout_s)
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
            self._ledger.jobs.note_trouble(job_id, Problem.of(error))
        return self.job(job_id)


def _files_label(names: Sequence[str]) -> str:
    first = names[0][:LABEL_CHARS]
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"
