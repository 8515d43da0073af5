"""What was lost is sent again, and what is over is put away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from workers.errors import Unavailable
from workers.files import Files
from workers.housekeeping import Housekeeper
from workers.ledger import Ledger, NewJob, NewSearch, Outcome, Reference
from workers.options import SearchOptions
from workers.records import ItemState, JobKind, JobState, SearchState
from workers.settings import Settings

PATIENCE_S = 60.0
DAYS_S = 86_400.0


class Queue:
    """Stands for the dispatcher, and only notes what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, list[int]]] = []
        self.down = False

    def one_by_one(self, job_id: str, item_ids: Sequence[int]) -> None:
        self._send("items", job_id, list(item_ids))

    def listing(self, job_id: str) -> None:
        self._send("listing", job_id, [])

    def pump(self, job_id: str) -> None:
        self._send("pump", job_id, [])

    def _send(self, what: str, job_id: str, item_ids: list[int]) -> None:
        if self.down:
            raise Unavailable("The message broker does not answer.")
        self.sent.append((what, job_id, item_ids))


class House:
    """A ledger and files to keep, and a clock that can be put forward."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(data_dir=path, lease_s=300.0, result_hours=1.0)
        self.ledger = Ledger(self.settings.database_url)
        self.files = Files(path)
        self.queue = Queue()
        self._passed_s = 0.0
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + self._passed_s)

    def keeper(self, **changes: float) -> Housekeeper:
        settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        return Housekeeper(self.queue, self.ledger, self.files, settings)  # type: ignore[arg-type]

    def after(self, seconds: float) -> list[tuple[str, str, list[int]]]:
        """Let time pass, sweep, and return what was sent."""
        self._passed_s += seconds
        self.queue.sent.clear()
        self.keeper().sweep()
        return self.queue.sent

    def job(self, items: int, kind: JobKind = JobKind.URLS) -> str:
        job_id = self.ledger.jobs.create(NewJob(kind, "a job"))
        refs = [Reference(f"spool:{number}", "a.jpg") for number in range(items)]
        self.ledger.items.add(job_id, refs)
        self.ledger.jobs.finish_listing(job_id)
        return job_id

    def search(self) -> str:
        new = NewSearch({"kind": "upload", "label": "a"}, "spool:q", SearchOptions(k=1))
        return self.ledger.searches.create(new, keep_s=3_600.0)

    def state(self, ticket: str) -> SearchState:
        return self.ledger.searches.get(ticket).state


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    opened = House(tmp_path, monkeypatch)
    yield opened
    opened.ledger.close()


def test_an_empty_house_needs_nothing(house: House) -> None:
    assert house.after(0) == []


def test_lost_items_are_sent_again_one_by_one_after_their_lease(house: House) -> None:
    job_id = house.job(3)
    (ids,) = house.ledger.items.dispatch(job_id, batch=3, window=1)
    assert house.after(200) == [("pump", job_id, [])]
    assert house.after(200) == [("items", job_id, ids), ("pump", job_id, [])]
    assert house.after(200) == [("pump", job_id, [])]  # a new lease has begun
    house.ledger.items.finish([Outcome(ids[0], ItemState.INDEXED)])
    assert house.after(200)[0] == ("items", job_id, ids[1:])


def test_a_listing_that_stands_still_is_sent_again(house: House) -> None:
    job_id = house.ledger.jobs.create(NewJob(JobKind.FOLDER, "a folder"))
    assert ("listing", job_id, []) not in house.after(200)
    assert ("listing", job_id, []) in house.after(200)
    assert ("listing", job_id, []) not in house.after(200)


def test_a_job_with_nothing_left_is_closed_and_not_pumped(house: House) -> None:
    job_id = house.job(1)
    (ids,) = house.ledger.items.dispatch(job_id, batch=1, window=1)
    house.ledger.items.finish([Outcome(ids[0], ItemState.INDEXED)])
    assert house.after(0) == []
    job = house.ledger.jobs.get(job_id)
    assert job is not None
    assert job.state is JobState.DONE


def test_a_search_that_nobody_answers_fails_with_a_remedy(house: House) -> None:
    ticket, running = house.search(), house.search()
    house.ledger.searches.claim(running)
    house.after(200)
    assert house.state(ticket) is SearchState.QUEUED
    house.after(200)
    assert house.state(ticket) is house.state(running) is SearchState.FAILED
    error = house.ledger.searches.get(ticket).error
    assert error is not None
    assert error.code == "no_worker"
    assert "lookalike worker" in error.remedy


def test_a_result_expires_with_its_thumbnail_and_is_known_as_expired_for_days(
    house: House,
) -> None:
    ticket = house.search()
    house.ledger.searches.finish(ticket, SearchState.DONE, result={"hits": [], "report": {}})
    thumbnail = house.files.query_thumbnail(ticket)
    thumbnail.parent.mkdir()
    thumbnail.touch()
    house.after(1_800)
    assert (house.state(ticket), thumbnail.exists()) == (SearchState.DONE, True)
    house.after(3_600)
    assert (house.state(ticket), thumbnail.exists()) == (SearchState.EXPIRED, False)
    house.after(6 * DAYS_S)
    assert house.state(ticket) is SearchState.EXPIRED
    house.after(2 * DAYS_S)
    assert house.state(ticket) is SearchState.UNKNOWN


def test_the_spool_is_swept_of_what_no_item_needs(house: House) -> None:
    house.job(1)
    for name in ("0", "forgotten"):
        path = house.files.spooled(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    house.after(0)
    assert house.files.spooled("0").exists()
    assert not house.files.spooled("forgotten").exists()


def test_without_a_broker_searches_end_and_lost_items_wait(house: House) -> None:
    job_id, ticket = house.job(1), house.search()
    (ids,) = house.ledger.items.dispatch(job_id, batch=1, window=1)
    house.queue.down = True
    with pytest.raises(Unavailable):
        house.after(400)
    assert house.state(ticket) is SearchState.FAILED
    house.queue.down = False
    assert ("items", job_id, ids) in house.after(400)


def test_two_keepers_send_a_lost_item_once(house: House) -> None:
    job_id = house.job(8)
    house.ledger.items.dispatch(job_id, batch=8, window=1)
    house.after(299)
    house._passed_s += 2
    house.queue.sent.clear()
    gate = threading.Barrier(3)

    def sweep() -> None:
        gate.wait()
        house.keeper().sweep()

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = [item for what, _, items in house.queue.sent if what == "items" for item in items]
    assert sorted(sent) == sorted(set(sent))
    assert len(sent) == 8


def test_a_keeper_sweeps_again_and_again_whatever_happens(house: House) -> None:
    house.queue.down = True
    house.job(1)
    keeper = house.keeper(sweep_interval_s=0.01)
    swept = threading.Semaphore(0)
    real = keeper.sweep

    def sweep() -> None:
        swept.release()
        real()

    keeper.sweep = sweep  # type: ignore[method-assign]
    keeper.start()
    try:
        assert all(swept.acquire(timeout=PATIENCE_S) for _ in range(3))
    finally:
        keeper.close()
    keeper.close()


def test_a_keeper_that_was_never_started_closes(house: House) -> None:
    house.keeper().close()
