"""Looking after what nobody waits for: lost messages, expired results, forgotten files."""

from __future__ import annotations

import logging
import threading
import time

from workers.dispatch import Dispatcher
from workers.errors import WorkerError
from workers.files import Files
from workers.ledger import Ledger
from workers.records import Problem, SearchState
from workers.settings import Settings

logger = logging.getLogger(__name__)

_TOMBSTONE_S = 7 * 86_400.0  # how long an expired ticket is still known as expired
_SPOOL_S = 2 * 86_400.0


class Housekeeper:
    """Sweeps every so often. Several may run at once: each act is claimed in the ledger first."""

    def __init__(
        self, dispatcher: Dispatcher, ledger: Ledger, files: Files, settings: Settings
    ) -> None:
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._files = files
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        """Begin sweeping in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the sweep that is under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """Look once.

        Raises:
            Unavailable: The ledger or the broker does not answer; the next sweep tries again.
        """
        now = time.time()
        self._end_stuck_searches(now)
        for ticket in self._ledger.searches.expire(now=now):
            self._files.drop(self._files.query_thumbnail(ticket))
        self._ledger.searches.forget(before=now - _TOMBSTONE_S)
        self._files.sweep_spool(needed=self._ledger.items.spooled, older_than_s=_SPOOL_S)
        # Last, since it is what cannot be done without a broker.
        self._resend(now)

    def _resend(self, now: float) -> None:
        overdue = now - self._settings.lease_s
        for job_id, item_ids in self._ledger.items.stale(before=overdue).items():
            self._dispatcher.one_by_one(job_id, item_ids)
        for job_id in self._ledger.jobs.stalled_listings(before=overdue):
            self._dispatcher.listing(job_id)
        for job_id in self._ledger.jobs.open_ids():
            if not self._ledger.jobs.settle(job_id):
                self._dispatcher.pump(job_id)

    def _end_stuck_searches(self, now: float) -> None:
        problem = Problem(
            "no_worker",
            f"No worker answered this search within {self._settings.lease_s:g} s.",
            "Start one with `lookalike worker`, and search again.",
        )
        for ticket in self._ledger.searches.stuck(before=now - self._settings.lease_s):
            self._ledger.searches.finish(ticket, SearchState.FAILED, problem=problem)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.sweep_interval_s):
            try:
                self.sweep()
            except WorkerError as error:
                logger.warning("The sweep stopped early and is tried again later: %s", error)
            except Exception:
                logger.exception("The sweep failed and is tried again later.")
