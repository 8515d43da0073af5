"""Processes killed for real, and a broker that goes away: nothing is lost, nothing is doubled."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ops.services import RabbitMQ
from tests.workers.conftest import PATIENCE_S, start_worker, workers
from tests.workers.pictures import folder_of, jpeg
from workers.client import Client
from workers.errors import Unavailable
from workers.records import Item, ItemState, Job, JobState, SearchState
from workers.settings import Settings

IMAGES = 160


@pytest.fixture
def settings(base_settings: Settings, rabbitmq: RabbitMQ, tmp_path: Path) -> Settings:
    return replace(
        base_settings,
        data_dir=tmp_path / "data",
        broker_url=rabbitmq.url,
        lease_s=3.0,
        sweep_interval_s=0.5,
        search_timeout_s=2.0,
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client.open(settings, trusted=True) as running:
        running.count()
        yield running


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("photos"), range(IMAGES))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "this never came about"
        time.sleep(0.01)


def outcomes(client: Client, job: Job) -> dict[int, ItemState]:
    items: list[Item] = client.items(job.id, limit=10 * IMAGES)
    return {item.id: item.state for item in items if item.state is not ItemState.PENDING}


def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    client: Client, settings: Settings, photos: Path
) -> None:
    rng = random.Random(7)
    with workers(settings, ["bulk", "crawl"]) as running:
        job = client.ingest_folder(photos)
        before: dict[int, ItemState] = {}
        for share in sorted(rng.uniform(0.05, 0.8) for _ in range(3)):
            wait_until(lambda share=share: client.job(job.id).counts.finished > share * IMAGES)
            before |= outcomes(client, job)
            running["bulk"].kill()
            running["bulk"].wait()
            counts = client.job(job.id).counts
            assert counts.balanced
            assert counts.pending
            running["bulk"] = start_worker(settings, "bulk")
        done = client.wait_job(job.id, 2 * PATIENCE_S)
    assert (done.state, done.counts.indexed, done.counts.submitted) == (
        JobState.DONE,
        IMAGES,
        IMAGES,
    )
    after = outcomes(client, job)
    assert {item_id: after[item_id] for item_id in before} == before
    assert client.count() == IMAGES


def test_a_job_survives_a_broker_that_goes_away_and_comes_back(
    client: Client, settings: Settings, photos: Path, rabbitmq: RabbitMQ
) -> None:
    with workers(settings, ["bulk", "crawl"]):
        job = client.ingest_folder(photos)
        wait_until(lambda: client.job(job.id).counts.finished > 0)
        rabbitmq.stop()
        try:
            assert client.job(job.id).counts.balanced
        finally:
            rabbitmq.start()
        done = client.wait_job(job.id, 2 * PATIENCE_S)
    assert (done.state, done.counts.indexed) == (JobState.DONE, IMAGES)


def test_without_a_broker_searches_are_refused_and_jobs_wait(
    client: Client, settings: Settings, rabbitmq: RabbitMQ
) -> None:
    rabbitmq.stop()
    try:
        with pytest.raises(Unavailable, match="RabbitMQ"):
            client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(1))))
        job = client.ingest_uploads([("a.jpg", io.BytesIO(jpeg(1)))])
        assert job.state.open
    finally:
        rabbitmq.start()
    # Far less than the lease: the sweep knows that the message never got out.
    with workers(replace(settings, lease_s=600.0), ["bulk", "interactive"]):
        done = client.wait_job(job.id, PATIENCE_S)
    assert (done.state, done.counts.indexed) == (JobState.DONE, 1)


def test_a_search_that_no_probe_answers_fails_with_a_reason(
    client: Client, settings: Settings
) -> None:
    with workers(settings, ["interactive"]):
        search = client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(1))))
        done = client.wait_search(search.ticket, PATIENCE_S)
    assert done.state is SearchState.FAILED
    assert done.error is not None
    assert done.error.code == "no_answer"


def test_a_killed_search_worker_leaves_its_search_to_the_next(
    client: Client, settings: Settings
) -> None:
    search = client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(1))))
    with workers(settings, ["interactive"]) as running:
        # Without probes it stays at work until its time is up.
        wait_until(lambda: client.search(search.ticket).state is SearchState.RUNNING)
        running["interactive"].kill()
        running["interactive"].wait()
        assert client.search(search.ticket).state is SearchState.RUNNING
        running["interactive"] = start_worker(settings, "interactive")
        running["probe"] = start_worker(settings, "probe")
        done = client.wait_search(search.ticket, PATIENCE_S)
    assert done.state is SearchState.DONE
