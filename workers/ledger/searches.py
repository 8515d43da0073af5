"""Searches and their kept results."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
from sqlalchemy import delete, func, insert, select, update

from workers.ledger.database import AnyRow, Database
from workers.ledger.tables import searches
from workers.options import SearchOptions
from workers.records import FoundImage, Problem, Search, SearchState

_OPEN = (SearchState.QUEUED, SearchState.RUNNING)
_KEPT = (SearchState.DONE, SearchState.PARTIAL, SearchState.FAILED, SearchState.CANCELLED)


@dataclass(frozen=True)
class NewSearch:
    """A search to be.

    Attributes:
        query: What people are told the query was.
        ref: ``spool:NAME``, a URL, or ``image:ID``.
    """

    query: Mapping[str, str]
    ref: str
    options: SearchOptions


@dataclass(frozen=True)
class SearchWork:
    """A search that a worker has taken up."""

    ticket: str
    ref: str
    options: SearchOptions
    attempts: int
    created_at: float
    started_at: float


class SearchLedger:
    """The searches table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, search: NewSearch, *, keep_s: float) -> str:
        """Record a search and return its ticket.

        Args:
            keep_s: How long the ticket is good for.
        """
        ticket = secrets.token_urlsafe(12)
        now = time.time()
        with self._database.write() as connection:
            connection.execute(
                insert(searches).values(
                    ticket=ticket,
                    state=SearchState.QUEUED,
                    query=dict(search.query),
                    ref=search.ref,
                    k=search.options.k,
                    effort=search.options.effort,
                    options=search.options.to_dict(),
                    attempts=0,
                    created_at=now,
                    expires_at=now + keep_s,
                )
            )
        return ticket

    def get(self, ticket: str) -> Search:
        """Return a search; its state is ``unknown`` if there is no such ticket."""
        with self._database.read() as connection:
            row = connection.execute(select(searches).where(searches.c.ticket == ticket)).first()
            if row is None:
                return Search(ticket, SearchState.UNKNOWN, {}, SearchOptions(), created_at=0.0)
            position = None
            if row.state == SearchState.QUEUED:
                ahead = select(func.count()).where(
                    searches.c.state == SearchState.QUEUED, searches.c.number < row.number
                )
                position = connection.scalar(ahead)
        return _search(row, position)

    def is_open(self, ticket: str) -> bool:
        """Return whether the search still waits or runs; cheap enough to ask often."""
        with self._database.read() as connection:
            state = connection.scalar(select(searches.c.state).where(searches.c.ticket == ticket))
        return state in _OPEN

    def queued(self) -> int:
        """Return how many searches wait for a worker."""
        query = select(func.count()).where(searches.c.state == SearchState.QUEUED)
        with self._database.read() as connection:
            return connection.scalar(query) or 0

    def claim(self, ticket: str) -> SearchWork | None:
        """Take a search up for work, or return ``None`` if it is over."""
        now = time.time()
        with self._database.write() as connection:
            row = connection.execute(
                update(searches)
                .where(searches.c.ticket == ticket, searches.c.state.in_(_OPEN))
                .values(
                    state=SearchState.RUNNING, started_at=now, attempts=searches.c.attempts + 1
                )
                .returning(searches)
            ).first()
        if row is None:
            return None
        return SearchWork(
            ticket, row.ref, _options(row), row.attempts, row.created_at, row.started_at
        )

    def finish(
        self,
        ticket: str,
        state: SearchState,
        *,
        result: Mapping[str, Any] | None = None,
        problem: Problem | None = None,
    ) -> None:
        """Write the end of a search, unless it has one already.

        Args:
            result: ``hits`` and ``report``, in plain types.
        """
        with self._database.write() as connection:
            connection.execute(
                update(searches)
                .where(searches.c.ticket == ticket, searches.c.state.in_(_OPEN))
                .values(
                    state=state,
                    finished_at=time.time(),
                    result=None if result is None else msgpack.packb(result),
                    error=problem.to_dict() if problem else None,
                )
            )

    def stuck(self, *, before: float) -> list[str]:
        """Return the tickets that have been open since before ``before``."""
        query = select(searches.c.ticket).where(
            searches.c.state.in_(_OPEN), searches.c.created_at < before
        )
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def expire(self, *, now: float) -> list[str]:
        """Drop the results whose time is over; return the tickets, whose files can go too."""
        with self._database.write() as connection:
            return list(
                connection.scalars(
                    update(searches)
                    .where(searches.c.state.in_(_KEPT), searches.c.expires_at < now)
                    .values(state=SearchState.EXPIRED, result=None)
                    .returning(searches.c.ticket)
                )
            )

    def forget(self, *, before: float) -> None:
        """Delete the searches that expired before ``before``; their tickets become unknown."""
        with self._database.write() as connection:
            connection.execute(
                delete(searches)
                .where(searches.c.state == SearchState.EXPIRED)
                .where(searches.c.expires_at < before)
            )


def _search(row: AnyRow, position: int | None) -> Search:
    result = msgpack.unpackb(row.result) if row.result else {}
    hits = tuple(_hit(hit) for hit in result.get("hits", ()))
    return Search(
        ticket=row.ticket,
        state=SearchState(row.state),
        query=row.query,
        options=_options(row),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        expires_at=row.expires_at,
        position=position,
        hits=hits,
        total=len(hits),
        report=result.get("report"),
        error=Problem(**row.error) if row.error else None,
    )


def _options(row: AnyRow) -> SearchOptions:
    return SearchOptions.of(row.options or {"k": row.k, "effort": row.effort})


def _hit(fields: dict[str, Any]) -> FoundImage:
    several = {name: tuple(fields.get(name, ())) for name in ("sources", "labels", "duplicates")}
    return FoundImage(**{**fields, **several})
