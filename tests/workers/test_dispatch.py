"""Which messages go into which queue, and what is said when the broker is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from workers.app import CRAWL, INGEST, INGEST_LIVE, QUEUES, SEARCH, make_app
from workers.dispatch import Dispatcher
from workers.errors import Unavailable
from workers.ledger import Ledger, NewJob, Reference
from workers.records import JobKind, JobState
from workers.settings import Settings


class App:
    """Stands for Celery, and only notes what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, tuple[Any, ...]]] = []
        self.expires: list[float | None] = []
        self.error: Exception | None = None

    def send_task(
        self,
        name: str,
        *,
        args: tuple[Any, ...],
        queue: str,
        expires: float | None,
        ignore_result: bool,
    ) -> None:
        assert ignore_result  # a reply queue would be waited for while the broker is away
        if self.error is not None:
            raise self.error
        self.sent.append((name, queue, args))
        self.expires.append(expires)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, batch_images=4, live_batch_images=2, window_batches=2)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings.database_url)
    yield opened
    opened.close()


def a_job(ledger: Ledger, items: int, *, live: bool = False) -> str:
    job_id = ledger.jobs.create(NewJob(JobKind.UPLOAD, "a job", live=live))
    ledger.items.add(job_id, [Reference(f"spool:{n}", f"{n}.jpg") for n in range(items)])
    ledger.jobs.finish_listing(job_id)
    return job_id


def test_searches_and_listings_have_queues_of_their_own(
    ledger: Ledger, settings: Settings
) -> None:
    app = App()
    dispatcher = Dispatcher(app, ledger, settings)  # type: ignore[arg-type]
    dispatcher.search("ticket")
    dispatcher.listing("job")
    assert app.sent == [("search", SEARCH, ("ticket",)), ("crawl", CRAWL, ("job",))]


@pytest.mark.parametrize(("live", "queue", "batch"), [(False, INGEST, 4), (True, INGEST_LIVE, 2)])
def test_a_window_of_batches_goes_out_and_the_rest_waits(
    ledger: Ledger, settings: Settings, live: bool, queue: str, batch: int
) -> None:
    app = App()
    dispatcher = Dispatcher(app, ledger, settings)  # type: ignore[arg-type]
    job_id = a_job(ledger, 11, live=live)
    dispatcher.pump(job_id)
    dispatcher.pump(job_id)
    assert [(name, where) for name, where, _ in app.sent] == [("ingest", queue)] * 2
    assert [len(args[1]) for _, _, args in app.sent] == [batch] * 2
    assert {args[0] for _, _, args in app.sent} == {job_id}
    assert app.expires == [settings.lease_s] * 2


def test_items_that_are_sent_again_go_one_by_one(ledger: Ledger, settings: Settings) -> None:
    app = App()
    job_id = a_job(ledger, 3)
    Dispatcher(app, ledger, settings).one_by_one(job_id, [5, 6])  # type: ignore[arg-type]
    assert app.sent == [("ingest", INGEST, (job_id, [5])), ("ingest", INGEST, (job_id, [6]))]


@pytest.mark.parametrize("error", [OperationalError("refused"), ConnectionError(), TimeoutError()])
def test_a_broker_that_is_away_is_named_and_the_work_waits(
    ledger: Ledger, settings: Settings, error: Exception
) -> None:
    app = App()
    app.error = error
    dispatcher = Dispatcher(app, ledger, settings)  # type: ignore[arg-type]
    job_id = a_job(ledger, 3)
    with pytest.raises(Unavailable, match="message broker does not answer") as caught:
        dispatcher.pump(job_id)
    assert caught.value.code == "broker_down"
    assert "LOOKALIKE_BROKER_URL" in caught.value.remedy
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.counts.pending) == (JobState.RUNNING, 3)


def test_every_queue_is_durable_and_messages_are_acknowledged_late(settings: Settings) -> None:
    conf = make_app(settings).conf
    assert [queue.name for queue in conf.task_queues] == list(QUEUES)
    assert all(queue.durable for queue in conf.task_queues)
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.accept_content == ["msgpack"]
