"""Jobs: what was asked for, and how far it is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, insert, not_, null, or_, select, update

from workers.ledger.database import AnyRow, Database
from workers.ledger.tables import items, jobs, pages
from workers.records import Counts, ItemState, Job, JobKind, JobState, Problem

OPEN_STATES = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class NewJob:
    """A job to be.

    Attributes:
        live: Whether its items go ahead of bulk work.
        params: What the listing needs: ``path`` of a folder; ``seed``, ``max_depth`` and
            ``max_pages`` of a crawl. Empty when the items come with the job.
        labels: What its images are labelled with.
    """

    kind: JobKind
    label: str
    live: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


class JobLedger:
    """The jobs table. Counts are always taken from the items themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, job: NewJob) -> str:
        """Record a job with no items yet and return its id."""
        job_id = secrets.token_hex(8)
        now = time.time()
        with self._database.write() as connection:
            connection.execute(
                insert(jobs).values(
                    id=job_id,
                    kind=job.kind,
                    label=job.label,
                    state=JobState.QUEUED,
                    live=job.live,
                    params=dict(job.params),
                    labels=list(job.labels),
                    submitted=0,
                    listing_done=False,
                    listing_at=now,
                    cancel=False,
                    created_at=now,
                )
            )
        return job_id

    def get(self, job_id: str) -> Job | None:
        """Return a job with its counts, or ``None``."""
        with self._database.read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
            return None if row is None else _job(connection, row)

    def latest(self, *, limit: int, before: str | None = None) -> list[Job]:
        """Return jobs, the newest first.

        Args:
            limit: Most jobs to return.
            before: Only jobs older than this one.
        """
        query = select(jobs).order_by(jobs.c.number.desc()).limit(limit)
        if before is not None:
            of_before = select(jobs.c.number).where(jobs.c.id == before).scalar_subquery()
            query = query.where(jobs.c.number < of_before)
        with self._database.read() as connection:
            return [_job(connection, row) for row in connection.execute(query)]

    def params(self, job_id: str) -> dict[str, Any]:
        """Return what the job's listing was told."""
        with self._database.read() as connection:
            found = connection.scalar(select(jobs.c.params).where(jobs.c.id == job_id))
        return dict(found or {})

    def open_ids(self) -> list[str]:
        """Return the ids of the jobs that still have something to do."""
        with self._database.read() as connection:
            return list(connection.scalars(select(jobs.c.id).where(jobs.c.state.in_(OPEN_STATES))))

    def live(self, job_id: str) -> bool:
        """Return whether the job's items go ahead of bulk work."""
        with self._database.read() as connection:
            return bool(connection.scalar(select(jobs.c.live).where(jobs.c.id == job_id)))

    def cancelled(self, job_id: str) -> bool:
        """Return whether somebody asked for the job to stop."""
        with self._database.read() as connection:
            return bool(connection.scalar(select(jobs.c.cancel).where(jobs.c.id == job_id)))

    def finish_listing(self, job_id: str, problem: Problem | None = None) -> None:
        """Note that the listing is over; with a problem the job fails once its items are done."""
        error = problem.to_dict() if problem else None
        self._update(job_id, listing_done=True, listing_at=time.time(), error=error)
        self.settle(job_id)

    def note_trouble(self, job_id: str, problem: Problem | None) -> None:
        """Note what keeps a job from getting on, or with ``None`` that it does again."""
        changed = jobs.c.trouble.is_not(None) if problem is None else jobs.c.state.in_(OPEN_STATES)
        trouble = null() if problem is None else problem.to_dict()
        with self._database.write() as connection:
            connection.execute(
                update(jobs).where(jobs.c.id == job_id, changed).values(trouble=trouble)
            )

    def lose_listing(self, job_id: str) -> None:
        """Note that the next step of a job's listing did not get into the queue."""
        self._update(job_id, listing_at=0.0)

    def stalled_listings(self, *, before: float) -> list[str]:
        """Claim the open jobs whose listing has not moved since ``before``, to be sent again."""
        with self._database.write() as connection:
            return list(
                connection.scalars(
                    update(jobs)
                    .where(jobs.c.state.in_(OPEN_STATES), not_(jobs.c.listing_done))
                    .where(jobs.c.listing_at < before)
                    .values(listing_at=time.time())
                    .returning(jobs.c.id)
                )
            )

    def cancel(self, job_id: str) -> None:
        """Ask a job to stop: what waits is cancelled now, what is under way ends.

        What was sent and is in nobody's hands waits too: in the queue, or for the sweep after
        a failure of the store.
        """
        now = time.time()
        waits = or_(items.c.dispatched_at.is_(None), items.c.attempts == 0)
        with self._database.write() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.state.in_(OPEN_STATES))
                .values(cancel=True, listing_done=True)
            )
            connection.execute(
                update(items)
                .where(items.c.job_id == job_id, items.c.state == ItemState.PENDING)
                .where(waits)
                .values(state=ItemState.CANCELLED, finished_at=now)
            )
        self.settle(job_id)

    def settle(self, job_id: str) -> bool:
        """Close the job if nothing is left to do; return whether this call closed it."""
        pending = select(items.c.id).where(
            items.c.job_id == job_id, items.c.state == ItemState.PENDING
        )
        with self._database.write() as connection:
            row = connection.execute(
                select(jobs.c.cancel, jobs.c.error)
                .where(
                    jobs.c.id == job_id,
                    jobs.c.state.in_(OPEN_STATES),
                    jobs.c.listing_done,
                    not_(pending.exists()),
                )
                .with_for_update()  # of several calls at once the first one closes it
            ).first()
            if row is None:
                return False
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id)
                .values(state=_final_state(row), finished_at=time.time())
            )
            return True

    def _update(self, job_id: str, **values: Any) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.state.in_(OPEN_STATES))
                .values(**values)
            )


def start(connection: Connection, job_id: str, now: float) -> None:
    """Mark a job as running, inside the transaction that hands out its first items."""
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED)
        .values(state=JobState.RUNNING, started_at=now)
    )


def _final_state(row: AnyRow) -> JobState:
    if row.cancel:
        return JobState.CANCELLED
    return JobState.FAILED if row.error else JobState.DONE


def _job(connection: Connection, row: AnyRow) -> Job:
    counts = _counts(connection, row)
    rate = _rate_per_s(row, counts)
    known = row.listing_done and rate and row.state in OPEN_STATES
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        label=row.label,
        state=JobState(row.state),
        counts=counts,
        listing_done=row.listing_done,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        rate_per_s=rate,
        eta_s=counts.pending / rate if known and rate else None,
        error=Problem(**row.error) if row.error else None,
        trouble=Problem(**row.trouble) if row.trouble else None,
        pages=_pages(connection, row.id) if row.kind == JobKind.CRAWL else None,
        labels=tuple(row.labels or ()),
    )


def _counts(connection: Connection, row: AnyRow) -> Counts:
    by_state = connection.execute(
        select(items.c.state, func.count()).where(items.c.job_id == row.id).group_by(items.c.state)
    )
    return Counts(submitted=row.submitted, **{str(state): count for state, count in by_state})


def _rate_per_s(row: AnyRow, counts: Counts) -> float | None:
    if row.started_at is None or not counts.finished:
        return None
    elapsed_s = (row.finished_at or time.time()) - row.started_at
    return counts.finished / elapsed_s if elapsed_s > 0 else None


def _pages(connection: Connection, job_id: str) -> dict[str, int]:
    by_state = connection.execute(
        select(pages.c.state, func.count()).where(pages.c.job_id == job_id).group_by(pages.c.state)
    )
    return {str(state): count for state, count in by_state}
