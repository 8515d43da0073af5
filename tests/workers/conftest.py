"""Clients of a real system: embedded, or RabbitMQ with worker processes and PostgreSQL."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.workers.pictures import jpeg
from tests.workers.sites import Site, site
from workers.client import Client
from workers.lanes import LANES
from workers.settings import PREFIX, Settings

PATIENCE_S = 60.0


@pytest.fixture(scope="session")
def bundle_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model bundle is assembled, once for all tests."""
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def base_settings(tmp_path_factory: pytest.TempPathFactory, bundle_cache: Path) -> Settings:
    """An empty collection on the embedded default; loopback sites may be fetched."""
    return Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        cache_dir=bundle_cache,
        allow_private_addresses=True,
        crawl_delay_s=0.0,
        engine_threads=1,
        decoders=1,
        batch_images=8,
    )


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment that gives another process these settings."""
    default = Settings(data_dir=settings.data_dir)
    changed = {
        name: value for name, value in vars(settings).items() if value != getattr(default, name)
    }
    given = {**changed, "data_dir": settings.data_dir}
    return {**os.environ, **{PREFIX + name.upper(): str(value) for name, value in given.items()}}


ALL_LANES = tuple(lane.name for lane in LANES)


def start_worker(settings: Settings, lane: str) -> subprocess.Popen[bytes]:
    """Start a worker process, to be ended by whoever started it."""
    command = [sys.executable, "-m", "tests.workers.run_worker", lane]
    return subprocess.Popen(command, env=environment(settings))


@contextmanager
def workers(
    settings: Settings, lanes: Sequence[str] = ALL_LANES
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Run a worker process per lane; whatever stands in the dictionary at the end is ended."""
    processes = {lane: start_worker(settings, lane) for lane in lanes}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(PATIENCE_S)


@contextmanager
def running_client(settings: Settings) -> Iterator[Client]:
    """Open a client, with worker processes where the broker is a real one."""
    with ExitStack() as stack:
        if not settings.embedded:
            stack.enter_context(workers(settings))
        yield stack.enter_context(Client.open(settings, trusted=True))


def warm(client: Client) -> None:
    """Use every part once: what a process starts on first use belongs to no single test."""
    client.count()
    path = client.settings.data_dir / "warm.jpg"
    path.write_bytes(jpeg(10**6))
    with path.open("rb") as file:
        jobs = [client.ingest_files([path]), client.ingest_uploads([("warm.jpg", file)])]
    for job in jobs:
        client.wait_job(job.id, PATIENCE_S)
    found = client.submit_search(upload=("warm.jpg", io.BytesIO(jpeg(10**6))))
    client.wait_search(found.ticket, PATIENCE_S)


@pytest.fixture
def web_site() -> Iterator[Site]:
    """A site on loopback."""
    with site() as running:
        yield running
