"""Stores of format 1 are brought to the format in use, whatever happens meanwhile."""

import json
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import lmdb
import numpy as np
import pytest
from store_world import FIXTURES, make_id, make_image, make_query, make_spec, run_in_fork

from ops.drill.format1 import old_image, old_sources, write_old_store
from store import (
    NotAStore,
    Shard,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreVersionError,
    converting,
    swapping,
)
from store.layout import FORMAT
from store.migrate import format_of, migrate
from store.segments import SEGMENT_ROWS

ANSWERS = json.loads((FIXTURES / "format-1-answers.json").read_text())
"""What format 1 answered on its fixtures: ids begin with, distances, differing bits."""


def old_fixture(folder, bits):
    """Copy a fixture to where a shard is."""
    shutil.copytree(FIXTURES / f"format-1-{bits}-bits", folder)
    return folder


def old_store(folder, rows, next_row, **options):
    """Write a store of format 1: the image of each row, by number."""
    images = {row: make_image(number) for row, number in rows.items()}
    write_old_store(folder, make_spec(), images, next_row, **options)
    return folder


@pytest.fixture
def old(tmp_path):
    return old_fixture(tmp_path / "shards" / "0-of-1", 20)


def records(shard):
    return {image.row: image for image in shard.recent(10**6)}


def spoiled(row, stored, *, rows, table):
    """Flip a bit of what some rows have in a table."""
    value = bytearray(stored[table])
    value[-1] ^= row in rows
    return {**stored, table: bytes(value)}


@pytest.mark.parametrize("bits", [20, 128])
def test_answers_are_the_same_after_migration(tmp_path, bits):
    folder = old_fixture(tmp_path / "0-of-1", bits)
    outcome = migrate(folder)
    assert outcome.migrated
    assert outcome.images == 29
    assert outcome.left_out == ()
    with Shard.open(folder, make_spec(bits)) as shard:
        assert shard.check().problems == ()
        for told in ANSWERS[str(bits)]:
            image = make_image(told["number"], bits)
            query = make_query(image, k=12, candidates=told["candidates"], code_weight=0.1)
            answer = shard.search(query)
            assert (answer.radius, answer.complete) == (told["radius"], told["complete"])
            names, distances, hamming = zip(*told["hits"], strict=True)
            assert [name[:8] for name in answer.names()] == list(names)
            assert answer.hamming.tolist() == list(hamming)
            assert answer.distances == pytest.approx(
                distances, abs=3e-5
            )  # queries are rounded now


def test_a_migrated_store_goes_on_where_the_old_one_was(old):
    migrate(old)
    with Shard.open(old, make_spec()) as shard:
        assert shard.get(make_id(5)).sources == ("/photos/5.jpg", "http://example.org/5")
        assert shard.get(make_id(9)) is None
        # An image that was delivered before is known; a deleted one gets a row of its own.
        assert shard.insert([make_image(4), make_image(9)])[0].created
        assert shard.count() == 30
        assert shard.get(make_id(9)).row == 30
        assert shard.check().problems == ()


def test_rows_records_and_values_stay_as_they_were(tmp_path):
    last = 2 * SEGMENT_ROWS
    rows = {0: 1, 1: 2, 2: 3, SEGMENT_ROWS + 5: 4, SEGMENT_ROWS + 9: 5, last + 3: 6, last + 200: 7}
    old_store(tmp_path / "old", rows, last + 300)
    migrate(tmp_path / "old")
    with Shard.open(tmp_path / "old", make_spec()) as shard:
        assert shard.check().problems == ()
        found = records(shard)
        assert {row: image.id for row, image in found.items()} == {
            row: make_id(number) for row, number in rows.items()
        }
        for row, number in rows.items():
            image, stored = make_image(number), old_image(make_image(number))
            assert found[row].origin == image.origin
            assert found[row].added_at == image.added_at
            assert found[row].sources == old_sources(image.source)
            assert found[row].labels == ()
            code, feature = shard.vectors(image.id)
            assert np.array_equal(code, image.code)
            values = np.frombuffer(stored["features"][28:], np.int8)
            scale = np.frombuffer(stored["features"][16:20], np.float32)
            assert np.array_equal(feature, values.astype(np.float32) * scale)
        assert shard.insert([make_image(8)])[0].created
        assert shard.get(make_id(8)).row == last + 300
        assert shard.delete([make_id(4), make_id(7)]) == [True, True]
        assert shard.check().problems == ()


@pytest.mark.parametrize("next_row", [0, 7, SEGMENT_ROWS, SEGMENT_ROWS + 3])
def test_a_store_whose_last_images_were_deleted_is_migrated(tmp_path, next_row):
    old_store(tmp_path / "old", {2: 1} if next_row else {}, next_row)
    migrate(tmp_path / "old")
    with Shard.open(tmp_path / "old", make_spec()) as shard:
        assert shard.check().problems == ()
        shard.insert([make_image(5)])
        assert shard.get(make_id(5)).row == next_row
        assert shard.check().problems == ()


def test_full_segments_are_packed_and_the_last_one_keeps_its_slots(tmp_path):
    rows = {row: row for row in (3, 70, 4000)}
    rows |= {SEGMENT_ROWS + row: row + 1 for row in (3, 70, 4000)}
    old_store(tmp_path / "old", rows, SEGMENT_ROWS + 4001)
    migrate(tmp_path / "old")
    with Shard.open(tmp_path / "old", make_spec()) as shard:
        assert shard.stats().dead_slots == 3998
        assert shard.check().problems == ()


@pytest.mark.parametrize(
    ("table", "told"),
    [("features", "feature of row 1 is not what was written"), ("images", "record of row 1 ")],
)
def test_damage_is_named_and_nothing_is_changed_unless_it_is_left_out(tmp_path, table, told):
    spoil = partial(spoiled, rows=(1, 4), table=table)
    folder = old_store(tmp_path / "shards" / "old", {n: n for n in range(6)}, 6, spoil=spoil)
    with pytest.raises(StoreDamaged, match=told) as caught:
        migrate(folder)
    assert "row 4" in str(caught.value)
    assert "--skip-damaged" in str(caught.value)
    assert format_of(folder) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["old"]
    outcome = migrate(folder, skip_damaged=True)
    assert len(outcome.left_out) == 2
    assert outcome.images == 4
    with Shard.open(folder, make_spec()) as shard:
        assert shard.check().problems == ()
        assert sorted(records(shard)) == [0, 2, 3, 5]


def test_an_image_of_two_rows_and_a_feature_without_record_are_named(tmp_path):
    def spoil(row, stored):
        return {"features": stored["features"]} if row == 2 else stored

    folder = old_store(tmp_path / "old", {0: 1, 1: 1, 2: 3}, 3, spoil=spoil)
    outcome = migrate(folder, skip_damaged=True)
    assert outcome.left_out == (
        "the feature of row 2 has no record",
        f"image {make_id(1)} of row 0 is not in the content index",
    )


def test_a_damaged_page_is_told_before_it_is_trusted(tmp_path):
    folder = old_store(tmp_path / "old", {n: n for n in range(60)}, 60)
    with (folder / "data.mdb").open("r+b") as file:
        file.seek(4096 * 4 + 10)
        file.write(b"\xff" * 6)
    with pytest.raises(StoreError):
        migrate(folder, skip_damaged=True)
    assert format_of(folder) == 1


def test_the_old_store_is_kept_if_wanted(old):
    outcome = migrate(old, keep=True)
    assert outcome.kept == old.parent / "format-1" / "0-of-1"
    assert format_of(outcome.kept) == 1
    assert format_of(old) == FORMAT
    again = migrate(old)
    assert not again.migrated
    assert format_of(outcome.kept) == 1
    assert sorted(path.name for path in old.parent.iterdir()) == ["0-of-1", "format-1"]


def test_an_old_store_that_was_kept_before_is_not_overwritten(old):
    shutil.copytree(old, old.parent / "format-1" / "0-of-1")
    with pytest.raises(StoreError, match="in the way"):
        migrate(old, keep=True)
    assert format_of(old) == 1


def test_opening_an_old_store_names_the_command(old):
    with pytest.raises(StoreVersionError, match="lookalike store migrate"):
        Shard.open(old, make_spec())
    with pytest.raises(StoreVersionError, match="lookalike store migrate"):
        Shard.open_existing(old)


def test_migrating_nothing_is_refused(tmp_path):
    with pytest.raises(NotAStore):
        migrate(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotAStore):
        migrate(tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


def test_another_process_that_has_the_store_open_is_named(old):
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        env = lmdb.open(str(old), max_dbs=8)
        os.write(sending, b"open")
        time.sleep(60)
        os._exit(env is None)
    try:
        assert os.read(receiving, 4) == b"open"
        with pytest.raises(StoreInUse, match=f"process {child} has .* open"):
            migrate(old)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(receiving)
        os.close(sending)
    assert migrate(old).migrated


def test_too_little_room_is_told_in_bytes(old, monkeypatch):
    monkeypatch.setattr(converting, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(StoreFull, match=r"needs 1,152,921,504,606,8[0-9]{2},[0-9]{3} bytes"):
        migrate(old)
    assert format_of(old) == 1


def test_a_file_system_that_cannot_exchange_names_is_enough(old, monkeypatch):
    monkeypatch.setattr(swapping, "_exchanged", lambda *_: False)
    assert migrate(old).migrated
    assert [path.name for path in old.parent.iterdir()] == ["0-of-1"]


def killed_at(step, work):
    """Run `work` in a fork that is killed at its n-th change of the disk; tell if it was."""

    def dying(function):
        def call(*args, **kwargs):
            nonlocal step
            step -= 1
            if step == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    child = os.fork()
    if child == 0:
        Path.rename = dying(Path.rename)
        Path.mkdir = dying(Path.mkdir)
        Path.rmdir = dying(Path.rmdir)
        os.unlink = dying(os.unlink)
        os.fsync = dying(os.fsync)
        Shard._write = dying(Shard._write)
        converting.BATCH_IMAGES = 8
        try:
            work()
        except BaseException:  # noqa: BLE001 - told by the exit status
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


@pytest.mark.parametrize(("exchange", "keep"), [(True, True), (False, False)])
def test_a_migration_that_is_killed_at_any_step_is_finished_by_the_next(
    old, monkeypatch, exchange, keep
):
    if not exchange:
        monkeypatch.setattr(swapping, "_exchanged", lambda *_: False)
    pristine = old.parent.parent / "pristine"
    shutil.copytree(old, pristine)
    step, killed = 0, True
    while killed:
        step += 1
        shutil.rmtree(old.parent)
        shutil.copytree(pristine, old)
        killed = killed_at(step, lambda: migrate(old, keep=keep))
        if exchange:
            assert format_of(old) in (1, FORMAT)
        migrate(old, keep=keep)
        with Shard.open(old, make_spec()) as shard:
            assert shard.count() == 29
            assert shard.check().problems == ()
        rest = {path.name for path in old.parent.iterdir()}
        assert rest in ({"0-of-1"}, {"0-of-1", "format-1"})
        assert keep or rest == {"0-of-1"}
    assert step > 10


def test_a_migration_that_is_killed_at_any_moment_is_finished_by_the_next(old):
    chance = random.Random(3)
    pristine = old.parent.parent / "pristine"
    shutil.copytree(old, pristine)
    for _ in range(20):
        shutil.rmtree(old.parent)
        shutil.copytree(pristine, old)
        child = os.fork()
        if child == 0:
            migrate(old)
            os._exit(0)
        time.sleep(chance.random() * 0.04)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        migrate(old)
        with Shard.open(old, make_spec()) as shard:
            assert shard.count() == 29
            assert shard.check().problems == ()
        assert [path.name for path in old.parent.iterdir()] == ["0-of-1"]


def test_a_process_that_opens_the_store_meanwhile_stops_the_migration(old, monkeypatch):
    monkeypatch.setattr(swapping, "other_users", lambda _: [4711])
    with pytest.raises(StoreInUse, match="process 4711"):
        migrate(old)
    assert format_of(old) == 1
    assert [path.name for path in old.parent.iterdir()] == ["0-of-1"]


def test_other_errors_of_renaming_are_not_hidden(tmp_path):
    with pytest.raises(FileNotFoundError):
        swapping.swap(tmp_path / "a", tmp_path / "b", tmp_path / "c" / "d")


def test_a_store_that_is_open_in_this_process_is_refused(old):
    migrate(old)
    with Shard.open(old, make_spec()), pytest.raises(StoreInUse):
        migrate(old)
    assert "returned" in run_in_fork(lambda: migrate(old).migrated)
