"""Pages that a crawl knows, and whether it has been there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from workers.ledger.database import Database, short_key
from workers.ledger.tables import jobs, pages
from workers.records import Problem

WAITING, VISITED, FAILED = "waiting", "visited", "failed"


@dataclass(frozen=True)
class Page:
    """A page to visit.

    Attributes:
        depth: Links away from the seed.
        attempts: Times it was taken up, this one included.
    """

    id: int
    job_id: str
    url: str
    depth: int
    attempts: int


class PageLedger:
    """The pages table: the frontier of every crawl."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job_id: str, urls: Sequence[str], *, depth: int, max_pages: int) -> int:
        """Add pages to a crawl, up to ``max_pages`` in all; known ones are passed over.

        Returns:
            How many were new.
        """
        with self._database.write() as connection:
            # The row lock keeps two deliveries of one page from overshooting the limit together.
            connection.execute(select(jobs.c.id).where(jobs.c.id == job_id).with_for_update())
            known = select(pages.c.url_key).where(pages.c.job_id == job_id)
            taken = set(connection.scalars(known))
            found = {short_key(url): url for url in urls}
            new = [(key, url) for key, url in found.items() if key not in taken]
            rows = [
                {
                    "job_id": job_id,
                    "url": url,
                    "url_key": key,
                    "depth": depth,
                    "state": WAITING,
                    "attempts": 0,
                }
                for key, url in new[: max(0, max_pages - len(taken))]
            ]
            if rows:
                connection.execute(insert(pages), rows)
        return len(rows)

    def next(self, job_id: str) -> Page | None:
        """Take up the page that has waited longest, or ``None`` when all are done."""
        query = (
            select(pages)
            .where(pages.c.job_id == job_id, pages.c.state == WAITING)
            .order_by(pages.c.id)
            .limit(1)
        )
        with self._database.write() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            attempts = row.attempts + 1
            connection.execute(update(pages).where(pages.c.id == row.id).values(attempts=attempts))
            connection.execute(
                update(jobs).where(jobs.c.id == job_id).values(listing_at=time.time())
            )
        return Page(row.id, row.job_id, row.url, row.depth, attempts)

    def finish(self, page_id: int, problem: Problem | None = None) -> None:
        """Note that a page is done with, well or not."""
        with self._database.write() as connection:
            connection.execute(
                update(pages)
                .where(pages.c.id == page_id)
                .values(
                    state=FAILED if problem else VISITED,
                    problem=problem.to_dict() if problem else None,
                )
            )

    def problem_of_seed(self, job_id: str) -> Problem | None:
        """Return why the first page could not be read, or ``None`` if it could."""
        query = select(pages.c.problem).where(pages.c.job_id == job_id, pages.c.depth == 0)
        with self._database.read() as connection:
            found = connection.scalar(query)
        return Problem(**found) if found else None
