"""Backups are whole whatever happens meanwhile, and restoring replaces all or nothing."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from store_world import find, make_id, make_image, make_query, make_spec

from ops.drill.small import small_segments
from store import (
    NotAStore,
    Shard,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreMismatch,
    StoreVersionError,
)
from store import backup as backup_module
from store.backup import backup
from store.manifest import Manifest
from store.restoring import restore

ROWS = 16
QUERY = make_query(make_image(3), k=1000)


@pytest.fixture(autouse=True)
def few_rows():
    with small_segments(ROWS):
        yield


@pytest.fixture
def folder(tmp_path):
    """The shards of a collection: one, of two full segments and one that is not."""
    with Shard.open(tmp_path / "data" / "shards" / "0-of-1", make_spec()) as shard:
        shard.insert([make_image(number) for number in range(2 * ROWS + 5)])
        shard.delete([make_id(7), make_id(20)])
    return tmp_path / "data" / "shards"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "backup"


def back_up(folder, target, **options):
    with Shard.open_existing(folder / "0-of-1") as shard:
        return backup([shard], target, **options)


def ids_of(folder):
    with Shard.open_existing(folder / "0-of-1") as shard:
        assert shard.check().problems == ()
        return {image.id for image in shard.recent(10**6)}


def names(numbers):
    return {make_id(number) for number in numbers}


def restored_ids(target, place):
    shutil.rmtree(place, ignore_errors=True)
    restore(target, place)
    return ids_of(place)


def test_what_was_restored_answers_as_the_original(folder, target, tmp_path):
    report = back_up(folder, target)
    assert (report.images, report.files, report.copied_files) == (2 * ROWS + 3, 4, 4)
    restored = restore(target, tmp_path / "other" / "shards")
    assert restored.images == report.images
    assert restored.bundle == make_spec().bundle_id
    with (
        Shard.open_existing(folder / "0-of-1") as shard,
        Shard.open(tmp_path / "other" / "shards" / "0-of-1", make_spec()) as other,
    ):
        assert other.check().problems == ()
        assert find(other, QUERY) == find(shard, QUERY)
        assert other.recent(100) == shard.recent(100)
        assert other.insert([make_image(99)])[0].created
        assert other.check().problems == ()


def test_a_second_backup_copies_what_is_new_alone(folder, target, tmp_path):
    first = back_up(folder, target)
    again = back_up(folder, target)
    assert again.copied_files == 0
    assert again.bytes == first.bytes
    with Shard.open_existing(folder / "0-of-1") as shard:
        shard.insert([make_image(number) for number in range(50, 60)])
    third = back_up(folder, target)
    assert third.copied_files == 2  # the tables, and the segment that was appended to
    assert len(list((target / "files").iterdir())) == third.files
    assert restored_ids(target, tmp_path / "r") == ids_of(folder)


def test_a_compacted_segment_is_copied_and_the_old_file_is_dropped(folder, target, tmp_path):
    back_up(folder, target)
    with Shard.open_existing(folder / "0-of-1") as shard:
        assert len(shard.compact(dead_share=0)) == 2
    report = back_up(folder, target)
    assert report.copied_files == 3
    assert len(list((target / "files").iterdir())) == report.files
    assert restored_ids(target, tmp_path / "r") == ids_of(folder)


def test_only_committed_slots_are_copied(folder, target, tmp_path):
    with Shard.open_existing(folder / "0-of-1") as shard:
        clean = backup([shard], target)
        path = shard._files.path(2, 0)
        with path.open("r+b") as file:
            file.seek(5 * 32)
            file.write(b"torn")
        shutil.rmtree(target)
        report = backup([shard], target)
    assert report.bytes == clean.bytes
    assert restored_ids(target, tmp_path / "r") == ids_of(folder)
    restored = (tmp_path / "r" / "0-of-1" / "segments" / path.name).read_bytes()
    assert b"torn" not in restored


def test_a_segment_that_is_compacted_while_it_is_copied_is_copied_to_its_end(
    folder, target, tmp_path, monkeypatch
):
    copied = backup_module.copy_parts

    def copy_parts(*args):
        shard.compact(dead_share=0)
        return copied(*args)

    monkeypatch.setattr(backup_module, "copy_parts", copy_parts)
    with Shard.open_existing(folder / "0-of-1") as shard:
        assert backup([shard], target).copied_files == 4
    assert restored_ids(target, tmp_path / "r") == ids_of(folder)


def test_a_segment_that_is_compacted_before_it_is_copied_means_a_new_beginning(
    folder, target, tmp_path, monkeypatch
):
    contents = backup_module._contents

    def compacted(*args):
        before = contents(*args)
        shard.compact(dead_share=0)
        return before

    monkeypatch.setattr(backup_module, "_contents", compacted)
    with Shard.open_existing(folder / "0-of-1") as shard:
        assert backup([shard], target).copied_files == 4
    assert restored_ids(target, tmp_path / "r") == ids_of(folder)


def test_a_store_that_is_compacted_all_the_time_is_given_up(folder, target, monkeypatch):
    def gone(_):
        raise backup_module._Gone

    monkeypatch.setattr(backup_module._Source, "opened", gone)
    with pytest.raises(StoreError, match="was compacted 10 times"):
        back_up(folder, target)
    assert not (target / "manifest.json").exists()


def working(path, first):
    """Start a process that inserts, deletes and compacts for ever; return its number."""
    child = os.fork()
    if child:
        return child
    with Shard.open(path, make_spec()) as shard:
        for batch in range(first, first + 500):
            shard.insert([make_image(batch * 5 + i) for i in range(5)])
            if batch > first + 2:
                shard.delete([make_id((batch - 3) * 5 + 2)])
            if batch % 7 == 0:
                shard.compact(dead_share=0)
            time.sleep(0.002)
    os._exit(1)


def moments(batches):
    """Yield what such a process has stored after so many batches, before and after the delete."""
    for batch in batches:
        whole = range(batch * 5)
        for deleted in (batch - 4, batch - 3):
            yield names(whole) - names(number * 5 + 2 for number in range(deleted))


def end(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_backup_during_writes_and_compaction_is_a_moment_of_the_store(tmp_path, target):
    path = tmp_path / "shards" / "0-of-1"
    with Shard.open(path, make_spec()):
        pass
    child = working(path, 0)
    try:
        sizes = []
        for _ in range(12):
            time.sleep(0.03)
            report = back_up(tmp_path / "shards", target)
            found = restored_ids(target, tmp_path / "r")
            assert found in moments(range(len(found) // 4 + 5))
            assert report.images == len(found)
            sizes.append(len(found))
    finally:
        end(child)
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


def test_a_backup_that_is_killed_leaves_the_one_before(folder, target, tmp_path):
    chance = random.Random(2)
    back_up(folder, target)
    before, number = ids_of(folder), 100
    for _ in range(15):
        with Shard.open_existing(folder / "0-of-1") as shard:
            shard.insert([make_image(number), make_image(number + 1)])
        number += 2
        child = os.fork()
        if child == 0:
            back_up(folder, target)
            os._exit(0)
        time.sleep(chance.random() * 0.05)
        end(child)
        found = restored_ids(target, tmp_path / "r")
        assert found in (before, ids_of(folder))
        before = found
    report = back_up(folder, target)
    assert restored_ids(target, tmp_path / "r") == ids_of(folder)
    assert sorted(path.name for path in target.iterdir()) == ["files", "lock", "manifest.json"]
    assert len(list((target / "files").iterdir())) == report.files


def test_a_restore_that_is_killed_leaves_the_old_collection_or_the_new_one(
    folder, target, tmp_path
):
    chance = random.Random(4)
    back_up(folder, target)
    new, place = ids_of(folder), tmp_path / "r"
    for _ in range(15):
        shutil.rmtree(place, ignore_errors=True)
        with Shard.open(place / "0-of-1", make_spec()) as shard:
            shard.insert([make_image(1000)])
        child = os.fork()
        if child == 0:
            restore(target, place, force=True)
            os._exit(0)
        time.sleep(chance.random() * 0.03)
        end(child)
        assert ids_of(place) in (new, {make_id(1000)})
        restore(target, place, force=True)
        assert ids_of(place) == new
        assert not (tmp_path / "r.restoring").exists()
        assert not (tmp_path / "r.replaced").exists()


def test_a_collection_is_replaced_on_demand_only(folder, target):
    back_up(folder, target)
    with Shard.open_existing(folder / "0-of-1") as shard:
        shard.insert([make_image(500)])
    with pytest.raises(StoreError, match=r"holds a collection.*--force"):
        restore(target, folder)
    assert make_id(500) in ids_of(folder)
    restore(target, folder, force=True)
    assert make_id(500) not in ids_of(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["shards"]


def test_a_collection_that_another_process_has_open_is_not_replaced(folder, target):
    back_up(folder, target)
    child = working(folder / "0-of-1", 100)
    try:
        time.sleep(0.2)
        with pytest.raises(StoreInUse, match=f"process {child} "):
            restore(target, folder, force=True)
    finally:
        end(child)


def spoil(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_a_flipped_bit_in_a_backup_is_found_before_anything_is_replaced(folder, target):
    back_up(folder, target)
    for name in [file.sha256 for file in Manifest.read(target).files]:
        spoil(target / "files" / name)
        with pytest.raises(StoreDamaged, match=name):
            restore(target, folder, force=True)
        spoil(target / "files" / name)
    assert len(ids_of(folder)) == 2 * ROWS + 3
    path = target / "files" / Manifest.read(target).files[0].sha256
    path.unlink()
    with pytest.raises(StoreDamaged, match="missing"):
        restore(target, folder, force=True)
    assert [path.name for path in folder.parent.iterdir()] == ["shards"]


def test_a_file_that_went_bad_is_copied_again_on_verification(folder, target, tmp_path):
    back_up(folder, target)
    (file, *_) = [file for file in Manifest.read(target).files if "segments/" in file.path]
    with (target / "files" / file.sha256).open("r+b") as stream:
        stream.seek(file.size - 3)
        stream.write(b"\xa5\xa5\xa5")
    assert back_up(folder, target).copied_files == 0
    assert back_up(folder, target, verify=True).copied_files == 1
    assert restored_ids(target, tmp_path / "r") == ids_of(folder)


def test_a_disk_that_reads_back_something_else_is_told(folder, target, monkeypatch):
    monkeypatch.setattr(backup_module, "checksum", lambda *_: "0" * 64)
    with pytest.raises(StoreDamaged, match="read back differently"):
        back_up(folder, target)
    assert not (target / "manifest.json").exists()


def test_a_target_of_something_else_is_left_alone(folder, target):
    target.mkdir()
    (target / "letter.txt").write_text("dear")
    with pytest.raises(NotAStore, match=r"letter\.txt"):
        back_up(folder, target)
    assert [path.name for path in target.iterdir()] == ["letter.txt"]
    (target / "letter.txt").unlink()
    back_up(folder, target)
    (target / "files" / "letter.txt").write_text("dear")
    back_up(folder, target)
    assert (target / "files" / "letter.txt").exists()


def test_a_backup_of_another_bundle_is_not_overwritten(folder, target, tmp_path):
    back_up(folder, target)
    with (
        Shard.open(tmp_path / "o", make_spec(bundle_id="other@0123456789ab")) as other,
        pytest.raises(StoreMismatch, match="tiny@0123456789ab"),
    ):
        backup([other], target)


def test_two_backups_into_one_folder_wait_for_each_other(folder, target):
    with backup_module._alone(target), pytest.raises(StoreInUse, match="another backup"):
        back_up(folder, target)


def test_too_little_room_is_told_before_anything_is_written(folder, target, monkeypatch):
    monkeypatch.setattr(backup_module, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(StoreFull, match="the backup needs"):
        back_up(folder, target)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": 2}, StoreVersionError),
        ({"store_format": 99}, StoreVersionError),
        ({"files": [{"path": "../x", "size": 1, "sha256": "0" * 64}]}, StoreDamaged),
        ({"files": [{"path": "0-of-1/x", "size": 1, "sha256": "0" * 64}]}, StoreDamaged),
        ({"files": [{"path": "9-of-9/data.mdb", "size": 1, "sha256": "0" * 64}]}, StoreDamaged),
        ({"surprise": 1}, StoreDamaged),
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_used_is_refused(folder, target, tmp_path, change, error):
    back_up(folder, target)
    path = target / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(error):
        restore(target, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_restoring_what_is_no_backup_is_refused(tmp_path):
    with pytest.raises(NotAStore, match="no backup"):
        restore(tmp_path, tmp_path / "r")
    Path(tmp_path, "manifest.json").write_text("{")
    with pytest.raises(StoreDamaged, match="no manifest"):
        restore(tmp_path, tmp_path / "r")
