"""What callers are told about searches, jobs, items and images: plain frozen records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from workers.errors import Rejected, WorkerError
from workers.options import SearchOptions


class SearchState(StrEnum):
    """Where a search stands; ``UNKNOWN`` is a ticket that was never given out or is long gone."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def open(self) -> bool:
        """Whether the state will still change by itself soon."""
        return self in (SearchState.QUEUED, SearchState.RUNNING)


class JobState(StrEnum):
    """Where a job stands; ``FAILED`` means that its items could not be listed."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Whether the job still has something to do."""
        return self in (JobState.QUEUED, JobState.RUNNING)


class ItemState(StrEnum):
    """Outcome of one item of a job.

    ``REJECTED`` means that the input is at fault, ``FAILED`` that it could not be had this time.
    """

    PENDING = "pending"
    INDEXED = "indexed"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobKind(StrEnum):
    """Where a job's images come from."""

    FOLDER = "folder"
    URLS = "urls"
    UPLOAD = "upload"
    CRAWL = "crawl"


@dataclass(frozen=True)
class Problem:
    """Why something went wrong, for people and programs alike."""

    code: str
    message: str
    remedy: str = ""

    @classmethod
    def of(cls, error: WorkerError) -> Problem:
        """Return the problem that an error describes."""
        return cls(error.code, error.message, error.remedy)

    def to_dict(self) -> dict[str, str]:
        """Return the fields as a plain mapping."""
        return asdict(self)


@dataclass(frozen=True)
class Failure:
    """Why an input gave no image, in a form that travels between processes.

    Attributes:
        state: ``REJECTED`` when the input is at fault, ``FAILED`` when it could not be had.
    """

    state: ItemState
    problem: Problem

    @classmethod
    def of(cls, error: WorkerError) -> Failure:
        """Return the failure that an error describes."""
        state = ItemState.REJECTED if isinstance(error, Rejected) else ItemState.FAILED
        return cls(state, Problem.of(error))


@dataclass(frozen=True)
class FoundImage:
    """One hit of a search, nearest first from ``rank`` 1.

    Attributes:
        added_at: Unix time in seconds; ``None`` in results of before it was kept.
        duplicates: Images that look nearly the same and were folded into this one.
    """

    rank: int
    id: str
    distance: float
    hamming: int
    sources: tuple[str, ...]
    width_px: int
    height_px: int
    format: str
    labels: tuple[str, ...] = ()
    added_at: float | None = None
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """A search as its ticket's holder sees it.

    Attributes:
        query: ``kind`` (``upload``, ``url`` or ``image``), ``label``, ``image_id`` of an image.
        options: What was asked besides the image.
        position: Searches queued before this one; ``None`` once it runs.
        hits: All that are kept, or the part of them that was asked for.
        total: Hits that are kept.
        offset: Rank of the first of ``hits``, less one.
        report: How the answer came about; ``None`` until there is one.
    """

    ticket: str
    state: SearchState
    query: dict[str, str]
    options: SearchOptions
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    position: int | None = None
    hits: tuple[FoundImage, ...] = ()
    total: int = 0
    offset: int = 0
    report: dict[str, Any] | None = None
    error: Problem | None = None

    def part(self, offset: int, limit: int | None) -> Search:
        """Return the search with some of its hits.

        Args:
            offset: Hits to leave out, nearest first.
            limit: Most hits to keep; ``None`` keeps all that follow.
        """
        end = None if limit is None else offset + limit
        return replace(self, hits=self.hits[offset:end], offset=offset)


@dataclass(frozen=True)
class Counts:
    """The accounting identity of a job: ``submitted`` is the sum of the rest, at any moment."""

    submitted: int = 0
    indexed: int = 0
    duplicate: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    pending: int = 0

    @property
    def finished(self) -> int:
        """Items that have their outcome."""
        return self.submitted - self.pending

    @property
    def balanced(self) -> bool:
        """Whether the identity holds."""
        outcomes = (self.indexed, self.duplicate, self.rejected, self.failed, self.cancelled)
        return self.submitted == sum(outcomes) + self.pending


@dataclass(frozen=True)
class Job:
    """A job as its owner sees it.

    Attributes:
        listing_done: Whether ``submitted`` is final.
        rate_per_s: Items finished per second since the start; ``None`` before the first.
        eta_s: Seconds left at that rate; ``None`` while listing or before there is a rate.
        error: Why the items could not be listed.
        trouble: What keeps a running job from getting on, such as a full disk. It goes on by
            itself when that is mended.
        pages: Pages by state, for a crawl.
        labels: What its images are labelled with.
    """

    id: str
    kind: JobKind
    label: str
    state: JobState
    counts: Counts
    listing_done: bool
    created_at: float
    started_at: float | None
    finished_at: float | None
    rate_per_s: float | None
    eta_s: float | None
    error: Problem | None
    trouble: Problem | None = None
    pages: dict[str, int] | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One item of a job.

    Attributes:
        attempts: Times that a worker took it up.
        image_id: The image that it is, once it is indexed or known as a duplicate.
    """

    id: int
    source: str
    state: ItemState
    problem: Problem | None
    image_id: str | None
    attempts: int
    finished_at: float | None
