"""Putting messages into queues. The ledger knows what is to be done; messages only point at it.

A job's items go into the queue a window at a time: every finished batch pulls the next one out of
the ledger. So a job of millions keeps the queue short, stops at once when it is cancelled, and
shares the workers with other jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from celery import Celery
from kombu.exceptions import OperationalError

from workers.app import CRAWL, INGEST, INGEST_LIVE, SEARCH
from workers.errors import Unavailable
from workers.ledger import Ledger
from workers.settings import Settings


class Dispatcher:
    """Sends work to the queues.

    Raises:
        Unavailable: From every method, when the broker does not answer. What was to be sent
            stands in the ledger and is sent by the next sweep.
    """

    def __init__(self, app: Celery, ledger: Ledger, settings: Settings) -> None:
        self._app = app
        self._ledger = ledger
        self._settings = settings

    def search(self, ticket: str) -> None:
        """Send a search."""
        self._send("search", SEARCH, ticket)

    def listing(self, job_id: str) -> None:
        """Send the next step of a job's listing."""
        try:
            self._send("crawl", CRAWL, job_id)
        except Unavailable:
            self._ledger.jobs.lose_listing(job_id)
            raise

    def pump(self, job_id: str) -> None:
        """Fill a job's window with the next of its items."""
        live = self._ledger.jobs.live(job_id)
        settings = self._settings
        batches = self._ledger.items.dispatch(
            job_id,
            batch=settings.live_batch_images if live else settings.batch_images,
            window=settings.window_batches,
        )
        for batch in batches:
            self._ingest(job_id, batch, live=live)

    def one_by_one(self, job_id: str, item_ids: Sequence[int]) -> None:
        """Send items again, each in a message of its own."""
        live = self._ledger.jobs.live(job_id)
        for item_id in item_ids:
            self._ingest(job_id, [item_id], live=live)

    def _ingest(self, job_id: str, item_ids: Sequence[int], *, live: bool) -> None:
        # After the lease the items are sent again; expiry keeps the queue from filling with
        # copies while no worker runs.
        try:
            self._send(
                "ingest",
                INGEST_LIVE if live else INGEST,
                job_id,
                list(item_ids),
                expires_s=self._settings.lease_s,
            )
        except Unavailable:
            self._ledger.items.take_back(item_ids)
            raise

    def _send(self, task: str, queue: str, *args: object, expires_s: float | None = None) -> None:
        with broker_errors():
            # With a result wanted, Celery would first declare a reply queue, and try for ever
            # while the broker is down.
            self._app.send_task(
                task, args=args, queue=queue, expires=expires_s, ignore_result=True
            )


@contextmanager
def broker_errors() -> Iterator[None]:
    """Translate what the broker's client raises.

    Raises:
        Unavailable: The broker does not answer.
    """
    try:
        yield
    except (OperationalError, ConnectionError, TimeoutError) as error:
        raise Unavailable(
            f"The message broker does not answer: {error}.",
            remedy="Start RabbitMQ, or check LOOKALIKE_BROKER_URL.",
            code="broker_down",
        ) from error
