"""Opening the collection for a command, with a word to people where it takes a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from models.catalogue import DEFAULT_BUNDLES
from ops.cli.console import Console
from ops.lock import make_data_dir
from workers.bundles import find_bundle
from workers.client import Client
from workers.settings import Settings


@contextmanager
def opened(
    settings: Settings, console: Console, *, serve: bool = False, workers: bool = True
) -> Iterator[Client]:
    """Open a client; unless it serves a site it may ingest whatever its user may read.

    Args:
        serve: Whether the process looks after the collection.
        workers: Whether there is work to do, and not only something to look at.

    Raises:
        WorkerError: A setting, the data directory or the ledger cannot be used.
        ModelError: The bundle cannot be used.
    """
    make_data_dir(settings.data_dir)
    ready_bundle(settings, console)
    # Whoever reaches the site is not the person at the command line.
    with Client.open(settings, trusted=not serve, serve=serve, workers=workers) as client:
        yield client


def ready_bundle(settings: Settings, console: Console) -> None:
    """Assemble the model bundle if that was not done yet, and say so, because it takes seconds.

    Raises:
        ModelError: The bundle cannot be used.
    """
    if settings.bundle not in DEFAULT_BUNDLES:
        return
    if any(settings.cache_dir.glob(f"{settings.bundle}-*")):
        return
    with console.step(f"Making the model bundle {settings.bundle} ready, the first time only"):
        find_bundle(settings)
