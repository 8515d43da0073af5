"""One worker process of one lane, as it runs against RabbitMQ."""

from __future__ import annotations

import os
import socket
import warnings
from dataclasses import replace

from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.worker.consumer import Consumer

from workers.app import INGEST, PROBE, SEARCH
from workers.dispatch import Dispatcher
from workers.housekeeping import Housekeeper
from workers.lanes import BULK, Lane
from workers.resources import Resources
from workers.settings import Settings
from workers.tasks import app_for
from workers.upkeep import StoreKeeper

_LOOK_UP_S = 0.5


def run_worker(settings: Settings, lane: Lane, *, number: int) -> None:
    """Take messages of a lane until SIGTERM or SIGINT.

    On the first signal the worker stops taking messages, finishes and acknowledges the one at
    work, closes store and ledger, and then the broker's connection. A second signal ends it at
    once; what was at work is delivered again.

    Args:
        settings: Everything that can be set; the broker must not be the embedded one.
        lane: Which queues to serve.
        number: Tells the workers of one lane apart, in logs and in the broker.

    Raises:
        WorkerError: A setting, the model bundle, the store or the ledger cannot be used.
    """
    # Celery warns of root because of pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    os.nice(lane.niceness)
    settings, decoders = _share(settings, lane)
    with Resources(settings, decoders=decoders) as resources:
        _open_early(resources, lane)
        app = app_for(resources)
        keeper = Housekeeper(
            Dispatcher(app, resources.ledger, settings),
            resources.ledger,
            resources.files,
            settings,
        )
        store_keeper = StoreKeeper(resources)
        if lane.name == BULK:
            keeper.start()
            store_keeper.start()
        try:
            worker = app.Worker(
                hostname=f"{lane.name}-{number}@{socket.gethostname()}",
                quiet=True,
                queues=list(lane.queues),
                loglevel="WARNING",
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
                ready_callback=_on_ready,
            )
            worker.start()
        finally:
            store_keeper.close()
            keeper.close()


def _share(settings: Settings, lane: Lane) -> tuple[Settings, int]:
    """Return the settings and number of decoders for one worker of a lane."""
    if lane.name != BULK:
        return settings, 1
    threads = max(1, settings.engine_threads // lane.workers)
    return replace(settings, engine_threads=threads), max(1, settings.decoders // lane.workers)


def _on_ready(consumer: Consumer) -> None:
    # An idle worker sleeps for long, and a signal does not wake it: it notices when it looks up.
    consumer.hub.call_repeatedly(_LOOK_UP_S, lambda: None)
    # At each lost connection Celery warns that a later release may cancel what is at work then.
    # It turns this warning on when it starts, so it is turned off here.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


def _open_early(resources: Resources, lane: Lane) -> None:
    """Open what the lane needs, so that what is wrong shows at start and the first is not slow."""
    if INGEST in lane.queues or SEARCH in lane.queues:
        resources.warm_up()
    elif PROBE in lane.queues:
        resources.shards.images()
