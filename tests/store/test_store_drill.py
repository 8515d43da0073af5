"""The drills at a small size (`make drill` is the large one), and that they find what is wrong."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

from ops.drill import disk, tracing
from ops.drill.child import Child, Pace, Violation
from ops.drill.run import NAMES
from ops.drill.work import BEGUN, DONE, REFUSED, possible
from ops.drill.world import Change, World, after, apply, delivered, drawn, outcome, plan
from store import StoreDamaged, StoreFull

ROOT = Path(__file__).parent.parent.parent

IN_PIECES = """
whole = Shard.insert
Shard.insert = lambda shard, batch: [whole(shard, [image])[0] for image in batch]
"""
NOT_TIDIED = """
Segments.remove_others = lambda files, current: None
compaction.clear_drafts = shard.clear_drafts = lambda files: None
"""
LABELS_FORGOTTEN = """
put = writing.pack_record
writing.pack_record = lambda image, code: put(replace(image, labels=image.labels[:1]), code)
"""
PLANTED = """
import sys
from dataclasses import replace
from ops.drill import work
from ops.drill.__main__ import main
from store import Shard, compaction, shard, writing
from store.segments import Segments
{fault}
main(sys.argv[1:])
"""


@pytest.fixture
def folder():
    """A folder in memory, where there is one: kills do not care, and the disk is slow."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def drill(folder, *options, fault=None):
    script = ["-m", "ops.drill"] if fault is None else ["-c", PLANTED.format(fault=fault)]
    return subprocess.run(
        [sys.executable, *script, "--folder", str(folder), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_was_committed_is_there_whatever_was_killed(folder, name):
    done = drill(folder, "--only", name, "--rounds", "10", "--minutes", "0.15")
    assert done.returncode == 0, done.stderr
    counted = re.search(rf"{name} +(\d+) rounds .* (\d+) (killed at work|named)", done.stdout)
    assert int(counted[1]) >= 1
    assert int(counted[2]) >= 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("only", "fault", "told"),
    [
        pytest.param("insert", IN_PIECES, "it holds not the images", id="a batch in pieces"),
        pytest.param("compact", NOT_TIDIED, "segments have the files", id="files left over"),
        pytest.param("insert", LABELS_FORGOTTEN, "stand under|label", id="a label forgotten"),
    ],
)
def test_a_fault_is_found_and_the_store_is_kept(folder, only, fault, told):
    done = drill(folder, "--only", only, "--rounds", "300", "--seed", "1", fault=fault)
    assert done.returncode == 1
    assert re.search(told, done.stderr)
    kept = re.search(r"is kept in (\S+); repeat it with: .* --seed 1", done.stderr)
    assert (Path(kept[1]) / "data.mdb").exists()


def test_a_change_that_was_cut_off_may_have_happened():
    first, second = Change(True, (1, 2), 0), Change(False, (2,), 0)
    one = {number: delivered(number, 0) for number in (1, 2)}
    in_order = partial(possible, {}, [first, second])
    assert in_order(b"") == ({},)
    assert in_order(BEGUN) == ({}, one)
    assert in_order(BEGUN + DONE) == (one,)
    assert in_order(BEGUN + DONE + BEGUN) == (one, {1: one[1]})
    assert in_order(BEGUN + REFUSED + BEGUN + DONE) == ({},)


def test_an_image_that_comes_again_gains_a_source_and_labels():
    held = after({1: delivered(1, 0)}, Change(True, (1,), 1))[1]
    assert held.origin == "item-1-0"
    assert held.sources == ("/photos/1-0.jpg", "/photos/1-1.jpg")
    assert held.labels == ("odd", "v1")
    assert outcome({1: held}, Change(True, (1, 2), 0)) == [True, True]
    assert outcome({1: held}, Change(True, (1, 2), 1)) == [False, True]
    assert outcome({1: held}, Change(False, (1, 2), 0)) == [True, False]


def test_parts_have_no_image_in_common():
    drawn_numbers = [
        {number for change in plan(drawn(1), part, 30, 0.5) for number in change.numbers}
        for part in range(3)
    ]
    assert not drawn_numbers[0] & drawn_numbers[1]
    assert not drawn_numbers[1] & drawn_numbers[2]


@pytest.mark.skipif(not tracing.allowed(), reason="nothing may be traced here")
def test_a_traced_process_is_killed_between_any_two_system_calls():
    def work(tell):
        for byte in b"abcde":
            tell(bytes([byte]))

    met = set()
    for stops in range(1, 25):
        child = Child(work, traced=True)
        child.kill(Pace(stops=99), SimpleNamespace(randrange=lambda *_, stops=stops: stops))
        met.add(child.end())
    assert met == {b"abcde"[:length] for length in range(6)}


def test_a_process_that_crashes_or_fails_is_a_violation():
    with pytest.raises(Violation, match="it crashed: User defined signal 1"):
        Child(lambda _: os.kill(os.getpid(), signal.SIGUSR1)).end()
    with pytest.raises(Violation, match="IndexError"):
        Child(lambda _: [][0]).end()


def test_a_disk_without_any_room_is_told_where_a_store_is_made(folder):
    """LMDB alone would write into a hole of its lock file, and the process would be killed."""

    def work(tell):
        if not disk.become_private():
            tell(b"not allowed")
            return
        disk.mount(folder / "disk")
        disk.leave_free(folder / "disk", 0)
        with pytest.raises(StoreFull, match="free some space and repeat it"):
            World.of(1, long_codes=False).open(folder / "disk" / "store")
        disk.free(folder / "disk")
        with World.of(1, long_codes=False).open(folder / "disk" / "store") as shard:
            lock = (shard.path / "lock.mdb").stat()
            tell(b"told" if lock.st_blocks * 512 >= lock.st_size else b"holes are left")

    said = Child(work).end()
    if said == b"not allowed":
        pytest.skip("nothing may be mounted here")
    assert said == b"told"


def test_a_map_that_grows_while_a_store_is_opened_is_looked_at_again(folder, monkeypatch):
    """What a drill found: between reading its size and mapping it, another process grew it."""
    world = World.of(1, long_codes=False)
    whole, refused = lmdb.open, [lmdb.MapResizedError("grown")] * 3

    def grown(*args, **options):
        if refused:
            raise refused.pop()
        return whole(*args, **options)

    monkeypatch.setattr(lmdb, "open", grown)
    with world.open(folder / "store") as shard:
        assert shard.count() == 0
    assert refused == []


@pytest.mark.parametrize("bit", [20, 50, 63])
def test_a_row_that_damage_has_made_up_is_told_by_searches_and_by_the_check(folder, bit):
    """What a drill found: an error that was none of ours, for no segment can hold such a row."""
    world = World.of(1, long_codes=True)

    def flip(store):
        with store.txn.cursor(store.tables.buckets) as cursor:
            cursor.first()
            key, entry = bytes(cursor.key()), bytes(cursor.value())
            cursor.delete()
            row = int.from_bytes(entry[:8], "big") ^ 1 << bit
            cursor.put(key, row.to_bytes(8, "big") + entry[8:])

    with world.open(folder / "store") as shard:
        apply(shard, world, Change(True, tuple(range(20)), 0))
        shard._write(flip)
    with world.open(folder / "store") as shard:
        with suppress(StoreDamaged):
            assert set(shard.search(world.query(1, k=20)).names()) <= set(world.names[:20])
        assert "has no readable record" in " ".join(shard.check().problems)
