"""The ledger's contract, the same over SQLite and a real PostgreSQL."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from workers.errors import SettingsError, Unavailable
from workers.ledger import Ledger, NewJob, NewSearch, Outcome, Reference
from workers.ledger.tables import SCHEMA_VERSION, metadata, schema
from workers.options import SearchOptions
from workers.records import FoundImage, ItemState, JobKind, JobState, Problem, SearchState

LATER = 4e9  # the year 2096
OUTCOMES = [ItemState.INDEXED, ItemState.DUPLICATE, ItemState.REJECTED, ItemState.FAILED]
PROBLEM = Problem("empty", "a.jpg is empty.", "Save it again.")
LINE_BREAKS = "a\nb\u2028c"


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]
)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'l.sqlite'}"
    return str(request.getfixturevalue("postgres").new_database("ledger_contract"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    with opened.database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            if table is not schema:
                connection.execute(table.delete())
    yield opened
    opened.close()


def a_job(ledger: Ledger, kind: JobKind = JobKind.URLS, **given: object) -> str:
    return ledger.jobs.create(replace(NewJob(kind, "a job"), **given))  # type: ignore[arg-type]


def refs(numbers: Sequence[int]) -> list[Reference]:
    return [Reference(f"http://host/{number}", f"http://host/{number}") for number in numbers]


def listed(ledger: Ledger, count: int) -> str:
    job_id = a_job(ledger)
    ledger.items.add(job_id, refs(range(count)))
    ledger.jobs.finish_listing(job_id)
    return job_id


def states(ledger: Ledger, job_id: str) -> dict[int, ItemState]:
    items = ledger.items.page(job_id, state=None, limit=10_000, after=0)
    return {item.id: item.state for item in items}


def taken_up(ledger: Ledger, job_id: str, count: int = 100) -> list[int]:
    """Dispatch and claim items, and return their ids."""
    (ids,) = ledger.items.dispatch(job_id, batch=count, window=1)
    return [work.id for work in ledger.items.claim(job_id, ids).works]


# -- jobs and items --------------------------------------------------------------------------


def test_a_new_job_is_queued_and_empty(ledger: Ledger) -> None:
    job_id = a_job(ledger, JobKind.FOLDER, label="photos", params={"path": "/photos"}, live=True)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.kind, job.label, job.state) == (JobKind.FOLDER, "photos", JobState.QUEUED)
    assert job.counts.submitted == 0
    assert job.counts.balanced
    assert not job.listing_done
    assert job.started_at is job.finished_at is job.rate_per_s is job.eta_s is job.error is None
    assert ledger.jobs.params(job_id) == {"path": "/photos"}
    assert ledger.jobs.live(job_id)


def test_an_unknown_job_is_none_and_does_nothing(ledger: Ledger) -> None:
    assert ledger.jobs.get("nonsense") is None
    assert ledger.items.add("nonsense", refs([1])) == 0
    assert ledger.items.dispatch("nonsense", batch=1, window=1) == []
    assert ledger.items.claim("nonsense", [1, 2]).works == []
    assert not ledger.jobs.settle("nonsense")
    ledger.jobs.cancel("nonsense")


def test_an_item_is_added_once_however_often_it_is_listed(ledger: Ledger) -> None:
    job_id = a_job(ledger)
    assert ledger.items.add(job_id, refs([1, 2, 2, 1])) == 2
    assert ledger.items.add(job_id, refs([2, 3])) == 1
    assert ledger.items.add(job_id, []) == 0
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.counts.submitted == job.counts.pending == 3


def test_a_listing_of_thousands_is_counted_right(ledger: Ledger) -> None:
    job_id = a_job(ledger)
    assert ledger.items.add(job_id, refs(range(2_500))) == 2_500
    assert ledger.items.add(job_id, refs(range(1_000, 3_000))) == 500
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.counts.submitted == 3_000
    assert job.counts.balanced


def test_the_same_image_in_two_jobs_is_an_item_of_each(ledger: Ledger) -> None:
    first, second = a_job(ledger), a_job(ledger)
    assert ledger.items.add(first, refs([1])) == ledger.items.add(second, refs([1])) == 1


def test_batches_keep_to_the_window(ledger: Ledger) -> None:
    job_id = listed(ledger, 10)
    sent = ledger.items.dispatch(job_id, batch=3, window=2)
    assert [len(batch) for batch in sent] == [3, 3]
    assert ledger.items.dispatch(job_id, batch=3, window=2) == []
    ledger.items.finish([Outcome(sent[0][0], ItemState.INDEXED)])
    assert [len(batch) for batch in ledger.items.dispatch(job_id, batch=3, window=2)] == [1]


def test_items_go_out_in_the_order_they_were_listed(ledger: Ledger) -> None:
    job_id = listed(ledger, 7)
    sent = ledger.items.dispatch(job_id, batch=3, window=9)
    assert [item for batch in sent for item in batch] == list(states(ledger, job_id))


def test_dispatching_starts_a_job_and_a_finished_batch_gives_a_rate(ledger: Ledger) -> None:
    job_id = listed(ledger, 4)
    ids = taken_up(ledger, job_id, 4)
    ledger.items.finish([Outcome(ids[0], ItemState.INDEXED)])
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.state is JobState.RUNNING
    assert job.started_at is not None
    assert job.rate_per_s is not None
    assert job.eta_s is not None
    assert job.eta_s == pytest.approx(3 / job.rate_per_s)


def test_a_claim_counts_the_attempt_and_names_the_origin(ledger: Ledger) -> None:
    job_id = listed(ledger, 1)
    ids = taken_up(ledger, job_id)
    (again,) = ledger.items.claim(job_id, ids).works
    assert again.attempts == 2
    assert again.origin == f"{job_id}:{ids[0]}"
    assert again.ref == again.source == "http://host/0"


def test_the_labels_of_a_job_come_with_its_items_at_every_delivery(ledger: Ledger) -> None:
    job_id = a_job(ledger, labels=("cats", "été 🐈"))
    ledger.items.add(job_id, refs([1]))
    (ids,) = ledger.items.dispatch(job_id, batch=1, window=1)
    for _ in range(2):
        (work,) = ledger.items.claim(job_id, ids).works
        assert work.labels == ("cats", "été 🐈")
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.labels == ("cats", "été 🐈")


def test_items_that_were_taken_up_before_come_back_one_by_one(ledger: Ledger) -> None:
    job_id = listed(ledger, 4)
    ids = taken_up(ledger, job_id, 2)
    (fresh,) = ledger.items.dispatch(job_id, batch=2, window=2)
    claim = ledger.items.claim(job_id, ids + fresh)
    assert [work.id for work in claim.works] == fresh
    assert claim.suspects == ids
    assert [work.id for work in ledger.items.claim(job_id, [ids[0]]).works] == [ids[0]]


def test_a_finished_item_is_not_handed_out_again(ledger: Ledger) -> None:
    job_id = listed(ledger, 2)
    ids = taken_up(ledger, job_id)
    ledger.items.finish([Outcome(ids[0], ItemState.INDEXED)])
    claim = ledger.items.claim(job_id, ids)
    assert [work.id for work in claim.works] == [ids[1]]
    assert claim.suspects == []


def test_a_claim_takes_nothing_of_another_job(ledger: Ledger) -> None:
    mine, other = listed(ledger, 1), listed(ledger, 1)
    (ids,) = ledger.items.dispatch(other, batch=1, window=1)
    assert ledger.items.claim(mine, ids).works == []


def test_an_outcome_never_changes(ledger: Ledger) -> None:
    job_id = listed(ledger, 1)
    (item_id,) = taken_up(ledger, job_id)
    ledger.items.finish([Outcome(item_id, ItemState.REJECTED, problem=PROBLEM)])
    ledger.items.finish([Outcome(item_id, ItemState.INDEXED, image_id="0" * 32)])
    ledger.jobs.cancel(job_id)
    (item,) = ledger.items.page(job_id, state=None, limit=9, after=0)
    assert (item.state, item.problem, item.image_id) == (ItemState.REJECTED, PROBLEM, None)
    assert item.finished_at is not None


def test_items_are_paged_and_filtered_by_state(ledger: Ledger) -> None:
    job_id = listed(ledger, 5)
    ids = taken_up(ledger, job_id)
    ledger.items.finish([Outcome(ids[1], ItemState.FAILED, problem=PROBLEM)])
    page = ledger.items.page(job_id, state=None, limit=2, after=ids[1])
    assert [item.id for item in page] == ids[2:4]
    failed = ledger.items.page(job_id, state=ItemState.FAILED, limit=9, after=0)
    assert [item.id for item in failed] == [ids[1]]


def test_overdue_items_are_claimed_for_one_sweep_only(ledger: Ledger) -> None:
    job_id = listed(ledger, 3)
    (ids,) = ledger.items.dispatch(job_id, batch=3, window=1)
    now = time.time() + 1
    ledger.items.finish([Outcome(ids[0], ItemState.INDEXED)])
    assert ledger.items.stale(before=0.0) == {}
    assert {job: sorted(found) for job, found in ledger.items.stale(before=now).items()} == {
        job_id: ids[1:]
    }
    with ledger.database.read():
        assert ledger.items.stale(before=now - 2) == {}


def test_recalled_items_wait_in_the_ledger_again(ledger: Ledger) -> None:
    job_id = listed(ledger, 3)
    sent = ledger.items.dispatch(job_id, batch=3, window=1)
    ledger.items.recall()
    assert ledger.items.dispatch(job_id, batch=3, window=1) == sent


def test_a_job_is_closed_exactly_once(ledger: Ledger) -> None:
    job_id = listed(ledger, 2)
    ids = taken_up(ledger, job_id)
    assert not ledger.jobs.settle(job_id)
    ledger.items.finish([Outcome(item_id, ItemState.INDEXED) for item_id in ids])
    assert [ledger.jobs.settle(job_id) for _ in range(3)] == [True, False, False]
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.state is JobState.DONE
    assert job.finished_at is not None
    assert job_id not in ledger.jobs.open_ids()


def test_only_one_of_many_threads_closes_a_job(ledger: Ledger) -> None:
    for _ in range(10):
        job_id = listed(ledger, 1)
        ledger.items.finish([Outcome(taken_up(ledger, job_id)[0], ItemState.INDEXED)])
        gate = threading.Barrier(4)

        def settle(job_id: str = job_id, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            return ledger.jobs.settle(job_id)

        with ThreadPoolExecutor(4) as threads:
            closed = list(threads.map(lambda _, act=settle: act(), range(4)))
        assert sorted(closed) == [False, False, False, True]


def test_a_job_stays_open_while_its_listing_goes_on(ledger: Ledger) -> None:
    job_id = a_job(ledger)
    assert not ledger.jobs.settle(job_id)
    ledger.jobs.finish_listing(job_id)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.state is JobState.DONE


def test_a_listing_that_fails_fails_the_job_with_its_reason(ledger: Ledger) -> None:
    job_id = a_job(ledger)
    ledger.jobs.finish_listing(job_id, PROBLEM)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.error) == (JobState.FAILED, PROBLEM)


def test_a_job_with_failed_items_is_done(ledger: Ledger) -> None:
    job_id = listed(ledger, 1)
    ledger.items.finish([Outcome(taken_up(ledger, job_id)[0], ItemState.FAILED, problem=PROBLEM)])
    assert ledger.jobs.settle(job_id)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.state is JobState.DONE
    assert job.counts.failed == 1


def test_cancelling_spares_what_is_under_way(ledger: Ledger) -> None:
    job_id = listed(ledger, 5)
    ids = taken_up(ledger, job_id, 2)
    ledger.jobs.cancel(job_id)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.counts.cancelled, job.counts.pending) == (3, 2)
    assert job.state is JobState.RUNNING
    ledger.items.finish([Outcome(item_id, ItemState.INDEXED) for item_id in ids])
    assert ledger.jobs.settle(job_id)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.state is JobState.CANCELLED
    assert (job.counts.cancelled, job.counts.indexed) == (3, 2)


@pytest.mark.parametrize("released_first", [True, False])
def test_cancelling_does_not_wait_for_items_that_nobody_works_on(
    ledger: Ledger, released_first: bool
) -> None:
    job_id = listed(ledger, 3)
    ids = taken_up(ledger, job_id, 2)
    steps = [lambda: ledger.items.release(job_id, ids), lambda: ledger.jobs.cancel(job_id)]
    for step in steps if released_first else reversed(steps):
        step()
    ledger.jobs.settle(job_id)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.counts.cancelled) == (JobState.CANCELLED, 3)


def test_a_cancelled_job_takes_nothing_more(ledger: Ledger) -> None:
    job_id = listed(ledger, 4)
    (ids,) = ledger.items.dispatch(job_id, batch=2, window=1)
    ledger.jobs.cancel(job_id)
    assert ledger.jobs.cancelled(job_id)
    assert ledger.items.add(job_id, refs([99])) == 0
    assert ledger.items.dispatch(job_id, batch=2, window=1) == []
    claim = ledger.items.claim(job_id, ids)
    assert claim.works == claim.suspects == []
    assert set(states(ledger, job_id).values()) == {ItemState.CANCELLED}


def test_a_job_that_is_over_takes_nothing_more(ledger: Ledger) -> None:
    job_id = listed(ledger, 1)
    ledger.items.finish([Outcome(taken_up(ledger, job_id)[0], ItemState.INDEXED)])
    ledger.jobs.settle(job_id)
    assert ledger.items.add(job_id, refs([99])) == 0
    ledger.jobs.cancel(job_id)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.counts.submitted) == (JobState.DONE, 1)


def test_a_cancelled_job_comes_to_its_end_although_its_queue_was_lost(ledger: Ledger) -> None:
    job_id = listed(ledger, 2)
    taken_up(ledger, job_id)
    ledger.jobs.cancel(job_id)
    ledger.items.recall()
    assert ledger.jobs.settle(job_id)
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.counts.cancelled) == (JobState.CANCELLED, 2)


def test_jobs_are_listed_newest_first_page_by_page(ledger: Ledger) -> None:
    ids = [a_job(ledger) for _ in range(5)]
    first = [job.id for job in ledger.jobs.latest(limit=2)]
    rest = [job.id for job in ledger.jobs.latest(limit=9, before=first[-1])]
    assert first + rest == ids[::-1]
    assert ledger.jobs.latest(limit=9, before="nonsense") == []


def test_only_a_listing_that_stands_still_is_sent_again(ledger: Ledger) -> None:
    begun, done, over = a_job(ledger), listed(ledger, 1), a_job(ledger)
    ledger.jobs.finish_listing(over)
    assert ledger.jobs.stalled_listings(before=time.time() - 60) == []
    assert ledger.jobs.stalled_listings(before=LATER) == [begun]
    assert ledger.jobs.stalled_listings(before=time.time() - 60) == []
    assert done in ledger.jobs.open_ids()


def test_spooled_names_are_those_that_unfinished_items_need(ledger: Ledger) -> None:
    job_id = a_job(ledger)
    given = [Reference(f"spool:{name}", f"upload:{name}.jpg") for name in "ab"]
    ledger.items.add(job_id, [*given, *refs([1])])
    ids = taken_up(ledger, job_id)
    ledger.items.finish([Outcome(ids[0], ItemState.INDEXED)])
    assert ledger.items.spooled() == {"b"}


@pytest.mark.parametrize("text", ["\0", "a\ud800b", "\udcff.jpg", "🖼️ ß", "x" * 5_000, LINE_BREAKS])
def test_any_text_can_be_a_label_a_source_and_a_message(ledger: Ledger, text: str) -> None:
    job_id = a_job(ledger, label=text, params={"path": text})
    assert ledger.items.add(job_id, [Reference(text, text), Reference(text + "!", text)]) == 2
    assert ledger.items.add(job_id, [Reference(text, text)]) == 0
    ids = taken_up(ledger, job_id)
    problem = Problem("damaged", text)
    ledger.items.finish([Outcome(ids[0], ItemState.REJECTED, problem=problem)])
    item, _ = ledger.items.page(job_id, state=None, limit=9, after=0)
    assert item.problem == problem
    assert ledger.jobs.params(job_id) == {"path": text}
    job = ledger.jobs.get(job_id)
    assert job is not None
    for shown in (job.label, item.source):
        shown.encode()  # what is shown can be sent on
        assert len(shown) == len(text)


# -- the accounting identity -----------------------------------------------------------------


class Play:
    """One job at the hands of chance: messages are lost, doubled, late and reordered."""

    batch, window = 3, 2

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.job_id = a_job(ledger)
        self.queue: list[list[int]] = []
        self.at_work: list[int] = []
        self.refs: set[int] = set()
        self.cancelled = False
        self.known: dict[int, ItemState] = {}

    def add(self, rng: random.Random) -> None:
        numbers = [rng.randrange(30) for _ in range(rng.randrange(8))]
        self.ledger.items.add(self.job_id, refs(numbers))
        self.refs |= set() if self.cancelled else set(numbers)

    def dispatch(self, _: random.Random) -> None:
        self.queue += self.ledger.items.dispatch(self.job_id, batch=self.batch, window=self.window)

    def deliver(self, rng: random.Random) -> None:
        if self.queue:
            message = rng.choice(self.queue)
            if rng.random() < 0.7:  # else it is delivered again
                self.queue.remove(message)
            claim = self.ledger.items.claim(self.job_id, message)
            self.at_work += [work.id for work in claim.works]
            self.queue += [[item_id] for item_id in claim.suspects]

    def finish(self, rng: random.Random) -> None:
        rng.shuffle(self.at_work)
        done = [self.at_work.pop() for _ in range(min(rng.randrange(5), len(self.at_work)))]
        self.ledger.items.finish([Outcome(item_id, rng.choice(OUTCOMES)) for item_id in done])

    def finish_twice(self, rng: random.Random) -> None:
        doubled = [item_id for item_id, state in self.known.items() if state in OUTCOMES]
        self.ledger.items.finish([Outcome(item_id, rng.choice(OUTCOMES)) for item_id in doubled])

    def die(self, _: random.Random) -> None:
        self.at_work.clear()

    def sweep(self, _: random.Random) -> None:
        for item_ids in self.ledger.items.stale(before=LATER).values():
            self.queue += [[item_id] for item_id in item_ids]

    def restart(self, _: random.Random) -> None:
        self.queue.clear()
        self.at_work.clear()
        self.ledger.items.recall()

    def cancel(self, rng: random.Random) -> None:
        if rng.random() < 0.2:
            self.ledger.jobs.cancel(self.job_id)
            self.cancelled = True

    def check(self) -> None:
        job = self.ledger.jobs.get(self.job_id)
        assert job is not None
        assert job.counts.balanced
        assert job.counts.submitted == len(self.refs)
        now = states(self.ledger, self.job_id)
        assert Counter(now.values())[ItemState.PENDING] == job.counts.pending
        for item_id, state in self.known.items():
            assert state in (ItemState.PENDING, now[item_id])
        self.known = now
        assert len({item for message in self.queue for item in message}) <= len(now)

    def end(self, rng: random.Random) -> None:
        """Work all off, as workers and sweeps would."""
        self.ledger.jobs.finish_listing(self.job_id)
        for _ in range(100):
            job = self.ledger.jobs.get(self.job_id)
            if job is None or not job.state.open:
                break
            self.dispatch(rng)
            self.deliver(rng)
            self.finish(rng)
            self.sweep(rng)
            self.ledger.jobs.settle(self.job_id)
        self.check()
        assert ItemState.PENDING not in self.known.values()
        job = self.ledger.jobs.get(self.job_id)
        assert job is not None
        assert job.state is (JobState.CANCELLED if self.cancelled else JobState.DONE)


MOVES = [
    "add",
    "dispatch",
    "deliver",
    "finish",
    "finish_twice",
    "die",
    "sweep",
    "restart",
    "cancel",
]


@given(st.lists(st.sampled_from(MOVES), max_size=30), st.integers(0, 2**32))
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_identity_holds_whatever_happens(ledger: Ledger, moves: list[str], seed: int) -> None:
    rng = random.Random(seed)
    play = Play(ledger)
    for move in ["add", *moves]:
        getattr(play, move)(rng)
        play.check()
    play.end(rng)


@given(st.lists(st.sampled_from(["dispatch", "deliver", "finish", "restart"]), max_size=20))
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_more_is_on_its_way_than_the_window_lets(ledger: Ledger, moves: list[str]) -> None:
    rng = random.Random(1)
    play = Play(ledger)
    ledger.items.add(play.job_id, refs(range(25)))
    for move in moves:
        getattr(play, move)(rng)
        now = states(ledger, play.job_id)
        under_way = {item for message in play.queue for item in message} | set(play.at_work)
        pending = {item for item in under_way if now[item] is ItemState.PENDING}
        assert len(pending) <= play.batch * play.window


class Crowd:
    """Threads that lose, double and forget messages; a sweeper; a reader who checks the sum."""

    def __init__(self, ledger: Ledger, items: int, cancel_after: int | None) -> None:
        self.ledger = ledger
        self.job_id = listed(ledger, items)
        self.cancel_after = cancel_after
        self.messages: queue.Queue[list[int]] = queue.Queue()
        self.closed = 0
        self.over = threading.Event()

    def work(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self.over.is_set():
            with suppress(queue.Empty):
                self.deliver(self.messages.get(timeout=0.01), rng)

    def deliver(self, message: list[int], rng: random.Random) -> None:
        if rng.random() < 0.1:
            return  # the message is lost
        if rng.random() < 0.1:
            self.messages.put(message)
        claim = self.ledger.items.claim(self.job_id, message)
        for item_id in claim.suspects:
            self.messages.put([item_id])
        if rng.random() < 0.1:
            return  # the worker dies
        outcomes = [Outcome(work.id, rng.choice(OUTCOMES)) for work in claim.works]
        rng.shuffle(outcomes)
        self.ledger.items.finish(outcomes)
        self.settle_or_pump()

    def settle_or_pump(self) -> None:
        if self.ledger.jobs.settle(self.job_id):
            self.closed += 1
        for batch in self.ledger.items.dispatch(self.job_id, batch=4, window=3):
            self.messages.put(batch)

    def look_after(self) -> None:
        seen: dict[int, ItemState] = {}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            job = self.ledger.jobs.get(self.job_id)
            assert job is not None
            assert job.counts.balanced
            if not job.state.open:
                return
            now = states(self.ledger, self.job_id)
            assert all(state in (ItemState.PENDING, now[item]) for item, state in seen.items())
            seen = now
            if self.cancel_after is not None and job.counts.finished >= self.cancel_after:
                self.ledger.jobs.cancel(self.job_id)
            if self.messages.empty():
                self.sweep()

    def sweep(self) -> None:
        for item_ids in self.ledger.items.stale(before=LATER).values():
            for item_id in item_ids:
                self.messages.put([item_id])
        self.settle_or_pump()

    def run(self) -> None:
        with ThreadPoolExecutor(5) as threads:
            working = [threads.submit(self.work, seed) for seed in range(4)]
            try:
                threads.submit(self.look_after).result()
            finally:
                self.over.set()
            for future in working:
                future.result()


def test_the_identity_holds_with_many_threads_at_once(ledger: Ledger) -> None:
    crowd = Crowd(ledger, 60, cancel_after=None)
    crowd.run()
    job = ledger.jobs.get(crowd.job_id)
    assert job is not None
    assert (job.state, job.counts.submitted, job.counts.cancelled) == (JobState.DONE, 60, 0)
    assert job.counts.pending == 0
    assert crowd.closed == 1


def test_a_job_cancelled_amid_many_threads_comes_to_its_end(ledger: Ledger) -> None:
    crowd = Crowd(ledger, 60, cancel_after=15)
    crowd.run()
    job = ledger.jobs.get(crowd.job_id)
    assert job is not None
    assert (job.state, job.counts.pending) == (JobState.CANCELLED, 0)
    assert job.counts.cancelled > 0
    assert job.counts.balanced
    assert crowd.closed <= 1  # cancel() may be the one that closes it


# -- pages -----------------------------------------------------------------------------------


def test_pages_are_visited_in_the_order_they_were_found(ledger: Ledger) -> None:
    job_id = a_job(ledger, JobKind.CRAWL)
    assert ledger.pages.add(job_id, ["http://h/"], depth=0, max_pages=9) == 1
    assert ledger.pages.add(job_id, ["http://h/", "http://h/a"], depth=1, max_pages=9) == 1
    seen = []
    while page := ledger.pages.next(job_id):
        seen.append((page.url, page.depth, page.attempts))
        ledger.pages.finish(page.id)
    assert seen == [("http://h/", 0, 1), ("http://h/a", 1, 1)]
    job = ledger.jobs.get(job_id)
    assert job is not None
    assert job.pages == {"visited": 2}


def test_a_page_that_nobody_finished_is_taken_up_again(ledger: Ledger) -> None:
    job_id = a_job(ledger, JobKind.CRAWL)
    ledger.pages.add(job_id, ["http://h/", "http://h/a"], depth=0, max_pages=9)
    taken = [ledger.pages.next(job_id) for _ in range(3)]
    assert [page.attempts for page in taken if page] == [1, 2, 3]
    assert {page.url for page in taken if page} == {"http://h/"}


def test_a_crawl_knows_no_more_pages_than_its_limit(ledger: Ledger) -> None:
    job_id = a_job(ledger, JobKind.CRAWL)
    urls = [f"http://h/{number}" for number in range(10)]
    assert ledger.pages.add(job_id, urls[:4], depth=0, max_pages=6) == 4
    assert ledger.pages.add(job_id, urls, depth=1, max_pages=6) == 2
    assert ledger.pages.add(job_id, urls, depth=1, max_pages=6) == 0


def test_threads_that_add_pages_together_keep_to_the_limit(ledger: Ledger) -> None:
    job_id = a_job(ledger, JobKind.CRAWL)

    def add(number: int) -> int:
        urls = [f"http://h/{number}/{each}" for each in range(5)]
        return ledger.pages.add(job_id, urls, depth=1, max_pages=12)

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(add, range(4))) == 12


def test_the_seeds_problem_is_the_crawls(ledger: Ledger) -> None:
    job_id = a_job(ledger, JobKind.CRAWL)
    ledger.pages.add(job_id, ["http://h/"], depth=0, max_pages=9)
    assert ledger.pages.problem_of_seed(job_id) is None
    page = ledger.pages.next(job_id)
    assert page is not None
    ledger.pages.finish(page.id, PROBLEM)
    assert ledger.pages.problem_of_seed(job_id) == PROBLEM


# -- searches --------------------------------------------------------------------------------


def a_search(ledger: Ledger, keep_s: float = 60.0) -> str:
    new = NewSearch({"kind": "upload", "label": "a.jpg"}, "spool:abc", OPTIONS)
    return ledger.searches.create(new, keep_s=keep_s)


OPTIONS = SearchOptions(
    k=5, max_distance=0.5, labels=("a", "b"), source="/photos", since=1.5, until=2.5, collapse=0.1
)
HIT = FoundImage(
    1,
    "0" * 32,
    0.25,
    3,
    ("/a.jpg", "http://h/a.jpg"),
    640,
    480,
    "JPEG",
    labels=("a",),
    added_at=1.75,
    duplicates=("1" * 32, "2" * 32),
)
OLD_HIT = {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in vars(HIT).items()
    if name not in ("labels", "added_at", "duplicates")
}
RESULT = {"hits": [vars(HIT)], "report": {"radius": 3}}


def test_a_ticket_that_was_never_given_out_is_unknown(ledger: Ledger) -> None:
    assert ledger.searches.get("nonsense").state is SearchState.UNKNOWN
    assert not ledger.searches.is_open("nonsense")
    assert ledger.searches.claim("nonsense") is None
    ledger.searches.finish("nonsense", SearchState.CANCELLED)
    assert ledger.searches.get("nonsense").state is SearchState.UNKNOWN


def test_a_queued_search_knows_how_many_are_ahead(ledger: Ledger) -> None:
    tickets = [a_search(ledger) for _ in range(3)]
    assert [ledger.searches.get(ticket).position for ticket in tickets] == [0, 1, 2]
    assert ledger.searches.queued() == 3
    ledger.searches.claim(tickets[0])
    ledger.searches.finish(tickets[1], SearchState.CANCELLED)
    assert [ledger.searches.get(ticket).position for ticket in tickets] == [None, None, 0]
    assert ledger.searches.queued() == 1


def test_a_search_runs_and_its_result_is_kept(ledger: Ledger) -> None:
    ticket = a_search(ledger)
    assert ledger.searches.get(ticket).state is SearchState.QUEUED
    work = ledger.searches.claim(ticket)
    assert work is not None
    assert (work.ref, work.options, work.attempts) == ("spool:abc", OPTIONS, 1)
    assert ledger.searches.get(ticket).state is SearchState.RUNNING
    assert ledger.searches.is_open(ticket)
    ledger.searches.finish(ticket, SearchState.DONE, result=RESULT)
    found = ledger.searches.get(ticket)
    assert found.state is SearchState.DONE
    assert (found.options, found.hits, found.total) == (OPTIONS, (HIT,), 1)
    assert found.report == {"radius": 3}
    assert found.query == {"kind": "upload", "label": "a.jpg"}
    assert found.finished_at is not None
    assert not ledger.searches.is_open(ticket)


def test_a_second_delivery_counts_as_an_attempt_and_an_ended_search_is_not_claimed(
    ledger: Ledger,
) -> None:
    ticket = a_search(ledger)
    ledger.searches.claim(ticket)
    again = ledger.searches.claim(ticket)
    assert again is not None
    assert again.attempts == 2
    ledger.searches.finish(ticket, SearchState.FAILED, problem=PROBLEM)
    assert ledger.searches.claim(ticket) is None
    assert ledger.searches.get(ticket).error == PROBLEM


@pytest.mark.parametrize(
    "end", [SearchState.DONE, SearchState.PARTIAL, SearchState.FAILED, SearchState.CANCELLED]
)
def test_the_end_of_a_search_never_changes(ledger: Ledger, end: SearchState) -> None:
    ticket = a_search(ledger)
    ledger.searches.finish(ticket, end)
    for other in SearchState:
        ledger.searches.finish(ticket, other, problem=PROBLEM)
    assert ledger.searches.get(ticket).state is end
    assert ledger.searches.get(ticket).error is None


def test_a_result_expires_and_is_forgotten_in_the_end(ledger: Ledger) -> None:
    ticket, kept = a_search(ledger, keep_s=10), a_search(ledger, keep_s=1_000)
    for each in (ticket, kept):
        ledger.searches.finish(each, SearchState.DONE, result=RESULT)
    now = time.time() + 100
    assert ledger.searches.expire(now=now) == [ticket]
    assert ledger.searches.expire(now=now) == []
    found = ledger.searches.get(ticket)
    assert (found.state, found.hits) == (SearchState.EXPIRED, ())
    ledger.searches.forget(before=now - 1_000)
    assert ledger.searches.get(ticket).state is SearchState.EXPIRED
    ledger.searches.forget(before=now)
    assert ledger.searches.get(ticket).state is SearchState.UNKNOWN
    assert ledger.searches.get(kept).state is SearchState.DONE


def test_a_search_that_still_runs_does_not_expire(ledger: Ledger) -> None:
    ticket = a_search(ledger, keep_s=0)
    assert ledger.searches.expire(now=LATER) == []
    assert ledger.searches.stuck(before=LATER) == [ticket]
    assert ledger.searches.stuck(before=time.time() - 60) == []
    ledger.searches.finish(ticket, SearchState.FAILED)
    assert ledger.searches.stuck(before=LATER) == []


# -- the database ----------------------------------------------------------------------------


def test_a_read_sees_one_moment(ledger: Ledger) -> None:
    job_id = listed(ledger, 1)
    other = a_job(ledger)
    with ledger.database.read() as connection:
        query = "SELECT count(*) FROM items"
        before = connection.exec_driver_sql(query).scalar()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(ledger.items.add, other, refs([1, 2])).result()
        assert connection.exec_driver_sql(query).scalar() == before
    assert len(states(ledger, other)) == 2
    assert len(states(ledger, job_id)) == 1


def test_a_transaction_that_fails_leaves_no_trace(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.database.write() as connection:
            connection.execute(insert(schema).values(version=77))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with ledger.database.read() as connection:
        versions = connection.exec_driver_sql("SELECT version FROM lookalike_schema").all()
    assert [row.version for row in versions] == [SCHEMA_VERSION]


def test_a_ledger_of_a_later_version_is_refused(ledger: Ledger, url: str) -> None:
    with ledger.database.write() as connection:
        connection.execute(update(schema).values(version=SCHEMA_VERSION + 1))
    try:
        with pytest.raises(Unavailable, match=r"later version .*Upgrade"):
            Ledger(url)
    finally:
        with ledger.database.write() as connection:
            connection.execute(update(schema).values(version=SCHEMA_VERSION))


def another_url(request: pytest.FixtureRequest, url: str, tmp_path: Path, name: str) -> str:
    """Return the URL of an empty database of the same kind."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'new' / 'ledger.sqlite'}"
    return str(request.getfixturevalue("postgres").new_database(name))


def opened_at_once(url: str) -> list[Ledger]:
    """Open a ledger several times at one moment."""
    gate = threading.Barrier(6)

    def open_ledger(_: int) -> Ledger:
        gate.wait()
        return Ledger(url)

    with ThreadPoolExecutor(6) as threads:
        return list(threads.map(open_ledger, range(6)))


def test_a_ledger_of_the_first_version_is_upgraded_with_what_is_in_it(
    request: pytest.FixtureRequest, url: str, tmp_path: Path
) -> None:
    old_url = another_url(request, url, tmp_path, "ledger_upgrade")
    old = Ledger(old_url)
    job_id, ticket = listed(old, 2), a_search(old)
    old.searches.finish(ticket, SearchState.DONE, result={**RESULT, "hits": [OLD_HIT]})
    with old.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN labels")
        connection.exec_driver_sql("ALTER TABLE searches DROP COLUMN options")
        connection.execute(update(schema).values(version=1))
    old.close()

    ledgers = opened_at_once(old_url)
    new = ledgers[0]
    job, search = new.jobs.get(job_id), new.searches.get(ticket)
    assert job is not None
    assert (job.labels, job.counts.pending) == ((), 2)
    (ids,) = new.items.dispatch(job_id, batch=2, window=1)
    assert [work.labels for work in new.items.claim(job_id, ids).works] == [(), ()]
    assert search.options == SearchOptions(k=OPTIONS.k, effort=OPTIONS.effort)
    assert search.hits == (replace(HIT, labels=(), added_at=None, duplicates=()),)
    assert new.searches.claim(a_search(new)) is not None
    with new.database.read() as connection:
        versions = connection.exec_driver_sql("SELECT version FROM lookalike_schema").all()
    assert [row.version for row in versions] == [SCHEMA_VERSION]
    for each in ledgers:
        each.close()


def test_processes_that_start_at_once_make_one_ledger(
    request: pytest.FixtureRequest, url: str, tmp_path: Path
) -> None:
    ledgers = opened_at_once(another_url(request, url, tmp_path, "ledger_race"))
    with ledgers[0].database.read() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM lookalike_schema").scalar()
    assert count == 1
    for each in ledgers:
        each.close()


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "",
        "nosuchdb://host/name",
        "postgresql+psycopg://user:sesame@host:port/name",
        "postgresql+nosuchdriver://user:sesame@host/name",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_bad_url_is_a_bad_setting(bad: str) -> None:
    with pytest.raises(SettingsError, match="LOOKALIKE_LEDGER_URL") as caught:
        Ledger(bad)
    assert "sqlite:///PATH" in caught.value.remedy
    assert "sesame" not in str(caught.value)


def test_an_unreachable_database_is_named_without_its_password() -> None:
    url = "postgresql+psycopg://someone:sesame@127.0.0.1:1/ledger"
    with pytest.raises(Unavailable) as caught:
        Ledger(url)
    assert "someone:***@127.0.0.1:1/ledger" in caught.value.message
    assert "sesame" not in str(caught.value)
    assert "LOOKALIKE_LEDGER_URL" in caught.value.remedy


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is not a database, " * 100)
    with pytest.raises(Unavailable, match=r"ledger\.sqlite failed: file is not a database"):
        Ledger(f"sqlite:///{path}")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match=r"file/ledger\.sqlite"):
        Ledger(f"sqlite:///{tmp_path / 'file' / 'ledger.sqlite'}")
