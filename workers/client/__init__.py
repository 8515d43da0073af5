"""The one way in for the site and the command line: searches, jobs and the collection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

from workers.app import make_app
from workers.client.jobs import DEFAULT_CRAWL_DEPTH, DEFAULT_CRAWL_PAGES, JobCalls
from workers.client.searches import SearchCalls
from workers.dispatch import Dispatcher
from workers.embedded import EmbeddedWorkers
from workers.housekeeping import Housekeeper
from workers.lanes import INTERACTIVE
from workers.resources import Resources
from workers.settings import Settings
from workers.tasks import app_for
from workers.upkeep import StoreKeeper

__all__ = ["DEFAULT_CRAWL_DEPTH", "DEFAULT_CRAWL_PAGES", "Client"]


class Client(SearchCalls, JobCalls):
    """Searches, jobs and the collection; safe to share between threads; a context manager."""

    def __init__(self, resources: Resources, dispatcher: Dispatcher, *, trusted: bool) -> None:
        super().__init__(resources, dispatcher, trusted=trusted)
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
            trusted: Whether any folder may be ingested, as from the command line; otherwise only
                those below the setting ``folder_roots``.
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
            if workers:
                resources.shards.check_fit()
            if settings.embedded and workers:
                # A query is not to wait behind a batch at the decoders either.
                interactive = resources.with_own_decoders("interactive", processes=1)
                parts = {INTERACTIVE: interactive}
                client._embed(
                    EmbeddedWorkers(lambda lane: app_for(parts.get(lane.name, resources))),
                    serve=serve,
                )
                if serve:
                    interactive.warm_up()
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
        if self.settings.embedded:
            store_keeper = StoreKeeper(self._resources)
            store_keeper.start()
            self._closers.append(store_keeper.close)
