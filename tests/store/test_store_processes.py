"""Several processes on one store, and processes that die."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from store_world import make_id, make_image, make_query, make_spec, run_in_fork, running

from store import Shard, StoreClosed, StoreInUse

HERE = Path(__file__).parent
MEGABYTE = 1 << 20


def writer(folder, *, first=0, stride=1, batches=10**9, size=5, map_bytes=MEGABYTE):
    """A writing process, killed at the end if it still runs."""
    return running("store_writer.py", folder, first, stride, batches, size, map_bytes)


def ids_of(shard):
    return {image.id for image in shard.recent(10**6)}


def batch_ids(batches, size):
    return {make_id(batch * size + i) for batch in batches for i in range(size)}


def test_a_reader_sees_a_commit_of_another_process_in_its_next_search(tmp_path):
    with (
        Shard.open(tmp_path, make_spec()) as shard,
        writer(tmp_path, batches=20) as process,
    ):
        for line in process.stdout:
            image = make_image(int(line) * 5 + 4)
            assert shard.search(make_query(image, k=1)).names() == [image.id]
        assert process.wait() == 0
        assert shard.count() == 100
        assert shard.check().problems == ()


def test_the_directory_is_kept_until_some_process_commits(tmp_path):
    def directory(shard):
        return shard._read(lambda store: store.directory())

    with (
        Shard.open(tmp_path, make_spec()) as shard,
        writer(tmp_path, batches=20) as process,
    ):
        for line in process.stdout:
            assert directory(shard).counts.sum() >= (int(line) + 1) * 5
        assert process.wait() == 0
        last = directory(shard)
        assert last.counts.sum() == 100
        assert directory(shard) is last
        shard.delete([make_id(1)])
        assert directory(shard).counts.sum() == 99


def test_two_processes_grow_the_map_under_each_other(tmp_path):
    tiny = 1 << 17
    with (
        Shard.open(tmp_path, make_spec(), map_bytes=tiny) as shard,
        writer(tmp_path, first=0, stride=2, batches=40, size=50, map_bytes=tiny) as one,
        writer(tmp_path, first=1, stride=2, batches=40, size=50, map_bytes=tiny) as other,
    ):
        seen = shard.stats().map_bytes
        while one.poll() is None or other.poll() is None:
            shard.search(make_query(make_image(1), k=3, candidates=10))
            shard.insert([make_image(10**6 + shard.count())])
        assert (one.returncode, other.returncode) == (0, 0)
        assert shard.stats().map_bytes > seen
        assert batch_ids(range(80), 50) <= ids_of(shard)
        assert shard.check().problems == ()


def test_a_killed_writer_leaves_exactly_what_it_committed(tmp_path):
    """kill -9 in the middle of inserts, two dozen times on one store."""
    chance = random.Random(5)
    committed = next_batch = 0
    for _ in range(24):
        with writer(tmp_path, first=next_batch, map_bytes=1 << 17) as process:
            reported = [process.stdout.readline() for _ in range(chance.randrange(6))]
            # Spin for a moment, so that the signal meets other places than just after a report.
            for _ in range(chance.randrange(20_000)):
                pass
            process.kill()
            reported += process.stdout.readlines()
        committed = next_batch + sum(line.endswith("\n") for line in reported)
        with Shard.open(tmp_path, make_spec()) as shard:
            assert shard.check().problems == ()
            found = ids_of(shard)
        assert found in (
            batch_ids(range(committed), 5),
            batch_ids(range(committed + 1), 5),  # committed, and killed before the report
        )
        next_batch = len(found) // 5
    assert next_batch > 24


def test_a_reader_that_was_killed_does_not_hold_pages_for_ever(tmp_path):
    script = (
        "import os, sys; from store import Shard\n"
        "shard = Shard.open_existing(sys.argv[1])\n"
        "shard._read(lambda _: os.kill(os.getpid(), 9))\n"
    )
    with Shard.open(tmp_path, make_spec()) as shard:
        shard.insert([make_image(number) for number in range(10)])
    root = str(HERE.parent.parent)
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    assert killed.returncode == -9
    with Shard.open(tmp_path, make_spec()) as shard:
        sizes = []
        for number in range(40):
            shard.delete([make_id(number)])
            shard.insert([make_image(number + 10)])
            sizes.append(shard.stats().file_bytes)
        assert sizes[-1] == sizes[10]


def test_a_forked_child_is_told_to_open_the_store_itself(tmp_path):
    with Shard.open(tmp_path, make_spec()) as shard:
        assert "after the fork" in run_in_fork(shard.count)
        assert StoreClosed.__name__ in run_in_fork(lambda: shard.insert([make_image(1)]))
        # LMDB refuses what the parent had open: its locks would be shared.
        assert StoreInUse.__name__ in run_in_fork(lambda: Shard.open(tmp_path, make_spec()))
        assert run_in_fork(shard.close) == "returned None"
        shard.insert([make_image(2)])
        assert shard.count() == 1


def test_a_child_that_was_forked_before_can_open_the_store(tmp_path):
    with Shard.open(tmp_path, make_spec()) as shard:
        shard.insert([make_image(2)])

    def count():
        with Shard.open(tmp_path, make_spec()) as shard:
            return shard.count()

    assert run_in_fork(count) == "returned 1"


def test_opening_a_store_twice_in_a_process_is_refused(tmp_path):
    with Shard.open(tmp_path, make_spec()) as shard:
        with pytest.raises(StoreInUse, match="share that store"):
            Shard.open(tmp_path, make_spec())
        with pytest.raises(StoreInUse):
            Shard.open_existing(tmp_path)
        assert shard.count() == 0
    with Shard.open(tmp_path, make_spec()) as shard:
        assert shard.count() == 0
