"""The plain function behind the `ingest` task, at every line where a worker may die."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from store import StoreFull
from tests.workers.pictures import jpeg
from workers import ingest
from workers.ledger import NewJob
from workers.records import Counts, Item, ItemState, JobKind, JobState
from workers.references import to_file
from workers.resources import Resources
from workers.settings import Settings
from workers.stopwatch import Stopwatch


@dataclass
class RecordingDispatcher:
    """Writes down what would have been sent."""

    pumped: list[str] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)

    def pump(self, job_id: str) -> None:
        self.pumped.append(job_id)

    def one_by_one(self, _job_id: str, item_ids: Sequence[int]) -> None:
        self.alone += item_ids


@pytest.fixture(scope="module")
def resources(base_settings: Settings) -> Iterator[Resources]:
    with Resources(base_settings) as opened:
        opened.warm_up()
        yield opened


@pytest.fixture
def dispatcher() -> RecordingDispatcher:
    return RecordingDispatcher()


def job_of(
    resources: Resources, folder: Path, seeds: Sequence[int], labels: tuple[str, ...] = ()
) -> tuple[str, list[int]]:
    """Make a job with one file per seed, all of it sent to the queue."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{place}.jpg" for place in range(len(seeds))]
    for path, seed in zip(paths, seeds, strict=True):
        path.write_bytes(jpeg(seed))
    job_id = resources.ledger.jobs.create(NewJob(JobKind.FOLDER, "job", labels=labels))
    resources.ledger.items.add(job_id, [to_file(path) for path in paths])
    resources.ledger.jobs.finish_listing(job_id)
    (ids,) = resources.ledger.items.dispatch(job_id, batch=len(seeds), window=1)
    return job_id, ids


def counts(resources: Resources, job_id: str) -> Counts:
    job = resources.ledger.jobs.get(job_id)
    assert job is not None
    assert job.counts.balanced
    return job.counts


def items(resources: Resources, job_id: str) -> list[Item]:
    return resources.ledger.items.page(job_id, state=None, limit=100, after=0)


def test_a_second_delivery_after_the_commit_keeps_the_outcome(
    resources: Resources, dispatcher: RecordingDispatcher, tmp_path: Path
) -> None:
    job_id, ids = job_of(resources, tmp_path, [1, 2])
    works = resources.ledger.items.claim(job_id, ids).works
    ingest.take_in(resources, works, Stopwatch())
    # The worker dies here: the images are stored and the ledger does not know.
    for item_id in ids:
        ingest.ingest(resources, dispatcher, job_id, [item_id])
    assert counts(resources, job_id) == Counts(submitted=2, indexed=2)


def test_a_third_delivery_after_the_outcome_changes_nothing(
    resources: Resources, dispatcher: RecordingDispatcher, tmp_path: Path
) -> None:
    job_id, ids = job_of(resources, tmp_path, [3])
    for _ in range(3):
        ingest.ingest(resources, dispatcher, job_id, ids)
    (item,) = items(resources, job_id)
    assert (item.state, item.attempts) == (ItemState.INDEXED, 1)


def test_labels_survive_a_redelivery_and_a_later_job_adds_its_own(
    resources: Resources, dispatcher: RecordingDispatcher, tmp_path: Path
) -> None:
    job_id, ids = job_of(resources, tmp_path, [21, 22], labels=("cats", "été"))
    works = resources.ledger.items.claim(job_id, ids[:1]).works
    ingest.take_in(resources, works, Stopwatch())
    # The worker dies here; both items are delivered again.
    for item_id in ids:
        ingest.ingest(resources, dispatcher, job_id, [item_id])
    names = [item.image_id or "" for item in items(resources, job_id)]
    assert [labels_of(resources, name) for name in names] == [{"cats", "été"}] * 2

    later, again = job_of(resources, tmp_path / "later", [22], labels=("dogs",))
    ingest.ingest(resources, dispatcher, later, again)
    assert counts(resources, later) == Counts(submitted=1, duplicate=1)
    assert labels_of(resources, names[1]) == {"cats", "dogs", "été"}
    assert resources.shards.labels() == {"cats": 2, "été": 2, "dogs": 1}


def labels_of(resources: Resources, image_id: str) -> set[str]:
    image = resources.shards.get(image_id)
    assert image is not None
    return set(image.labels)


def test_twins_in_one_batch_are_one_image_and_one_duplicate(
    resources: Resources, dispatcher: RecordingDispatcher, tmp_path: Path
) -> None:
    job_id, ids = job_of(resources, tmp_path, [4, 4])
    ingest.ingest(resources, dispatcher, job_id, ids)
    assert counts(resources, job_id) == Counts(submitted=2, indexed=1, duplicate=1)


def test_items_that_were_taken_up_before_come_back_one_by_one(
    resources: Resources, dispatcher: RecordingDispatcher, tmp_path: Path
) -> None:
    job_id, ids = job_of(resources, tmp_path, [5, 6, 7])
    resources.ledger.items.claim(job_id, ids[:2])
    ingest.ingest(resources, dispatcher, job_id, ids)
    assert dispatcher.alone == ids[:2]
    assert counts(resources, job_id) == Counts(submitted=3, indexed=1, pending=2)
    for item_id in dispatcher.alone:
        ingest.ingest(resources, dispatcher, job_id, [item_id])
    assert counts(resources, job_id) == Counts(submitted=3, indexed=3)


def test_an_item_that_keeps_taking_its_worker_down_is_given_up(
    resources: Resources, dispatcher: RecordingDispatcher, tmp_path: Path
) -> None:
    job_id, ids = job_of(resources, tmp_path, [8])
    for _ in range(resources.settings.max_attempts):
        assert resources.ledger.items.claim(job_id, ids).works
    ingest.ingest(resources, dispatcher, job_id, ids)
    (item,) = items(resources, job_id)
    assert item.state is ItemState.FAILED
    assert item.problem is not None
    assert item.problem.code == "worker_died"


def test_a_full_disk_keeps_items_waiting_and_the_job_says_why(
    resources: Resources,
    dispatcher: RecordingDispatcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id, ids = job_of(resources, tmp_path, [9, 10])

    def full(*_: object) -> None:
        raise StoreFull("the disk is full; free some space")

    with monkeypatch.context() as patch:
        patch.setattr("store.Shard.insert", full)
        ingest.ingest(resources, dispatcher, job_id, ids)
    job = resources.ledger.jobs.get(job_id)
    assert job is not None
    assert job.counts == Counts(submitted=2, pending=2)
    assert job.trouble is not None
    assert "disk is full" in job.trouble.message
    # Nothing was held against the items: they may go together again.
    ingest.ingest(resources, dispatcher, job_id, ids)
    job = resources.ledger.jobs.get(job_id)
    assert job is not None
    assert (job.counts, job.trouble) == (Counts(submitted=2, indexed=2), None)


def test_a_job_that_is_cancelled_while_its_store_fails_is_over(
    resources: Resources,
    dispatcher: RecordingDispatcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id, ids = job_of(resources, tmp_path, [9, 10])

    def full(*_: object) -> None:
        resources.ledger.jobs.cancel(job_id)
        raise StoreFull("the disk is full; free some space")

    monkeypatch.setattr("store.Shard.insert", full)
    ingest.ingest(resources, dispatcher, job_id, ids)
    job = resources.ledger.jobs.get(job_id)
    assert job is not None
    assert (job.state, job.counts.cancelled) == (JobState.CANCELLED, 2)


def test_a_finished_batch_pulls_the_next_one(
    resources: Resources, dispatcher: RecordingDispatcher, tmp_path: Path
) -> None:
    job_id, ids = job_of(resources, tmp_path, [11, 12])
    ingest.ingest(resources, dispatcher, job_id, ids[:1])
    assert dispatcher.pumped == [job_id]
    ingest.ingest(resources, dispatcher, job_id, ids[1:])
    assert dispatcher.pumped == [job_id]
