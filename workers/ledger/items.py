"""Items: every image that a job was asked to take in, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, not_, select, update

from workers.ledger.database import AnyRow, Database, short_key
from workers.ledger.jobs import OPEN_STATES, start
from workers.ledger.tables import items, jobs
from workers.records import Item, ItemState, Problem

_STALE_BATCH = 5_000  # well under the most parameters that a statement may have


@dataclass(frozen=True)
class Reference:
    """Where an image can be had, and how people are told about it.

    Attributes:
        ref: ``file:PATH``, ``spool:NAME``, or an ``http`` or ``https`` URL.
        source: What is shown and kept with the image.
    """

    ref: str
    source: str


@dataclass(frozen=True)
class Work:
    """An item that a worker has taken up.

    Attributes:
        origin: Token that is the same at every delivery of the item; the store recognises by it
            that an image it already has came from this very item.
        attempts: Times it was taken up, this one included.
        labels: What its job labels images with.
    """

    id: int
    job_id: str
    ref: str
    source: str
    attempts: int
    labels: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Token that is the same at every delivery of the item."""
        return f"{self.job_id}:{self.id}"


@dataclass(frozen=True)
class Claim:
    """What a worker got of the items it was sent.

    Attributes:
        works: To be done now.
        suspects: Ids that were taken up before without an outcome. Something about one of them
            may have taken the worker down, so each goes back to the queue in a message of its own.
    """

    works: list[Work]
    suspects: list[int]


@dataclass(frozen=True)
class Outcome:
    """What became of an item."""

    item_id: int
    state: ItemState
    image_id: str | None = None
    problem: Problem | None = None


class ItemLedger:
    """The items table. An outcome, once written, never changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job_id: str, references: Sequence[Reference]) -> int:
        """Add items to a job; what it already has is passed over.

        Returns:
            How many were new; 0 for a job that is over or cancelled.
        """
        if not references:
            return 0
        rows = [
            {
                "job_id": job_id,
                "ref": reference.ref,
                "ref_key": short_key(reference.ref),
                "source": reference.source,
                "state": ItemState.PENDING,
                "attempts": 0,
            }
            for reference in references
        ]
        statement = self._database.insert_new(items)
        with self._database.write() as connection:
            if not _takes_more(connection, job_id):
                return 0
            added = len(connection.execute(statement.returning(items.c.id), rows).all())
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id)
                .values(submitted=jobs.c.submitted + added, listing_at=time.time())
            )
        return added

    def dispatch(self, job_id: str, *, batch: int, window: int) -> list[list[int]]:
        """Take the next items out of the ledger, for the queue.

        Args:
            batch: Items in one message.
            window: Messages' worth of items that may be on their way at once.

        Returns:
            Item ids, one list per message; empty when the window is full or nothing waits.
        """
        now = time.time()
        pending = (items.c.job_id == job_id, items.c.state == ItemState.PENDING)
        with self._database.write() as connection:
            if _cancelled(connection, job_id):
                return []
            under_way = connection.scalar(
                select(func.count()).where(*pending, items.c.dispatched_at.is_not(None))
            )
            free = max(0, batch * window - (under_way or 0))
            waiting = select(items.c.id).where(*pending, items.c.dispatched_at.is_(None))
            taken = connection.scalars(
                update(items)
                .where(items.c.id.in_(waiting.order_by(items.c.id).limit(free)))
                .values(dispatched_at=now)
                .returning(items.c.id)
            ).all()
            if taken:
                start(connection, job_id, now)
        ids = sorted(taken)
        return [ids[first : first + batch] for first in range(0, len(ids), batch)]

    def claim(self, job_id: str, item_ids: Sequence[int]) -> Claim:
        """Take items up for work; those that have their outcome are left out."""
        wanted = (items.c.job_id == job_id, items.c.id.in_(item_ids))
        now = time.time()
        with self._database.write() as connection:
            cancelled = _cancelled(connection, job_id)
            rows = connection.execute(
                select(items)
                .where(*wanted, items.c.state == ItemState.PENDING)
                .order_by(items.c.id)
                .with_for_update()
            ).all()
            if cancelled:
                _cancel(connection, items.c.id.in_([row.id for row in rows]), now)
                return Claim([], [])
            fresh = rows if len(rows) == 1 else [row for row in rows if row.attempts == 0]
            suspects = [row.id for row in rows if row not in fresh]
            connection.execute(
                update(items)
                .where(items.c.id.in_([row.id for row in fresh]))
                .values(attempts=items.c.attempts + 1)
            )
            _note_sent(connection, suspects, now)
            labels = connection.scalar(select(jobs.c.labels).where(jobs.c.id == job_id))
        return Claim([_work(row, labels) for row in fresh], suspects)

    def release(self, job_id: str, item_ids: Sequence[int]) -> None:
        """Take claims back: it was not the items that kept them from being worked on.

        Those of a job that was cancelled since are cancelled with the rest of it.
        """
        with self._database.write() as connection:
            if _cancelled(connection, job_id):
                _cancel(connection, items.c.id.in_(item_ids), time.time())
                return
            connection.execute(
                update(items)
                .where(items.c.id.in_(item_ids), items.c.state == ItemState.PENDING)
                .values(attempts=items.c.attempts - 1)
            )

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes; an item that already has one keeps it."""
        if not outcomes:
            return
        now = time.time()
        # Rows are always locked in the order of their ids, or two workers could each wait for a
        # row that the other has.
        rows = [
            _outcome_values(outcome, now)
            for outcome in sorted(outcomes, key=lambda outcome: outcome.item_id)
        ]
        with self._database.write() as connection:
            connection.execute(_FINISH, rows)

    def stale(self, *, before: float) -> dict[str, list[int]]:
        """Claim the items that were sent before ``before`` and have no outcome, to be sent again.

        Returns:
            Item ids by job id; the oldest few thousand, the rest is for the next call.
        """
        # A row that somebody has locked is just getting its outcome, or another sweep has it.
        overdue = (
            select(items.c.job_id, items.c.id)
            .where(items.c.state == ItemState.PENDING, items.c.dispatched_at < before)
            .order_by(items.c.id)
            .limit(_STALE_BATCH)
            .with_for_update(skip_locked=True)
        )
        by_job: dict[str, list[int]] = {}
        with self._database.write() as connection:
            rows = connection.execute(overdue).all()
            _note_sent(connection, [row.id for row in rows], time.time())
            for job_id, item_id in rows:
                by_job.setdefault(job_id, []).append(item_id)
        return by_job

    def take_back(self, item_ids: Sequence[int]) -> None:
        """Put items back into the ledger that did not get into the queue."""
        with self._database.write() as connection:
            connection.execute(
                update(items)
                .where(items.c.id.in_(item_ids), items.c.state == ItemState.PENDING)
                .values(dispatched_at=None)
            )

    def recall(self) -> None:
        """Put everything that was sent back into the ledger: the queue it was in is gone.

        What was sent of a job that was cancelled since is cancelled with the rest of it.
        """
        of_cancelled = items.c.job_id.in_(select(jobs.c.id).where(jobs.c.cancel))
        with self._database.write() as connection:
            _cancel(connection, of_cancelled, time.time())
            connection.execute(
                update(items)
                .where(items.c.state == ItemState.PENDING, items.c.dispatched_at.is_not(None))
                .values(dispatched_at=None)
            )

    def page(self, job_id: str, *, state: ItemState | None, limit: int, after: int) -> list[Item]:
        """Return items of a job in the order they were added.

        Args:
            state: Only items in this state.
            limit: Most items to return.
            after: Only items with a larger id.
        """
        query = select(items).where(items.c.job_id == job_id, items.c.id > after)
        if state is not None:
            query = query.where(items.c.state == state)
        with self._database.read() as connection:
            return [
                _item(row) for row in connection.execute(query.order_by(items.c.id).limit(limit))
            ]

    def spooled(self) -> set[str]:
        """Return the names of the uploaded files that unfinished items still need."""
        query = select(items.c.ref).where(
            items.c.state == ItemState.PENDING, items.c.ref.startswith("spool:")
        )
        with self._database.read() as connection:
            return {ref.removeprefix("spool:") for ref in connection.scalars(query)}


# One statement for all outcomes of a batch: building a statement takes longer than running it.
_FINISH = (
    update(items)
    .where(items.c.id == bindparam("of_item"), items.c.state == ItemState.PENDING)
    .values(
        state=bindparam("of_state"),
        image_id=bindparam("of_image_id"),
        problem=bindparam("of_problem"),
        finished_at=bindparam("now"),
    )
)


def _outcome_values(outcome: Outcome, now: float) -> dict[str, Any]:
    return {
        "of_item": outcome.item_id,
        "of_state": outcome.state,
        "of_image_id": outcome.image_id,
        "of_problem": outcome.problem.to_dict() if outcome.problem else None,
        "now": now,
    }


def _cancelled(connection: Connection, job_id: str) -> bool:
    query = select(jobs.c.cancel).where(jobs.c.id == job_id)
    return bool(connection.scalar(query.with_for_update()))


def _takes_more(connection: Connection, job_id: str) -> bool:
    query = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state.in_(OPEN_STATES))
    return connection.scalar(query.where(not_(jobs.c.cancel)).with_for_update()) is not None


def _cancel(connection: Connection, which: ColumnElement[bool], now: float) -> None:
    connection.execute(
        update(items)
        .where(which, items.c.state == ItemState.PENDING)
        .values(state=ItemState.CANCELLED, finished_at=now)
    )


def _note_sent(connection: Connection, item_ids: list[int], now: float) -> None:
    connection.execute(update(items).where(items.c.id.in_(item_ids)).values(dispatched_at=now))


def _work(row: AnyRow, labels: Sequence[str] | None) -> Work:
    return Work(row.id, row.job_id, row.ref, row.source, row.attempts + 1, tuple(labels or ()))


def _item(row: AnyRow) -> Item:
    return Item(
        id=row.id,
        source=row.source,
        state=ItemState(row.state),
        problem=Problem(**row.problem) if row.problem else None,
        image_id=row.image_id,
        attempts=row.attempts,
        finished_at=row.finished_at,
    )
