"""Compaction: the space of deleted features is given back, and nothing else changes."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_upkeep import BITS
from store_world import find, make_id, make_image, make_query, make_spec
from upkeep_drill import keeper, kill_again_and_again

from ops.drill.small import small_segments
from store import Shard, StoreFull, compaction
from store import shard as shard_module

ROWS = 16
QUERY = make_query(make_image(3), k=1000)


@pytest.fixture(autouse=True)
def few_rows():
    with small_segments(ROWS):
        yield


@pytest.fixture
def shard(tmp_path):
    """Four full segments and one that is not."""
    with Shard.open(tmp_path / "shard", make_spec()) as shard:
        shard.insert([make_image(number) for number in range(4 * ROWS + 5)])
        yield shard


def remove(shard, numbers):
    shard.delete([make_id(number) for number in numbers])


def files(shard):
    return sorted(path.name for path in (shard.path / "segments").iterdir())


def test_answers_are_the_same_and_the_dead_slots_are_gone(shard):
    remove(shard, [*range(1, 30, 2), *range(40, 47)])
    whole = find(shard, QUERY)
    done = shard.compact()
    assert [each.segment for each in done] == [0, 1, 2]
    assert [each.slots for each in done] == [8, 9, 9]
    assert shard.stats().dead_slots == 0
    assert shard.check().problems == ()
    assert find(shard, QUERY) == whole
    assert "00000000-00000001.segment" in files(shard)
    assert "00000000-00000000.segment" not in files(shard)


def test_the_disk_has_the_space_of_deleted_features_again(tmp_path):
    dims = 1 << 15
    spec = replace(make_spec(), dims=dims)
    with Shard.open(tmp_path, spec) as shard:
        features = np.random.default_rng(0).normal(size=(3 * ROWS, dims)).astype(np.float32)
        shard.insert(
            [replace(make_image(i), feature=feature) for i, feature in enumerate(features)]
        )
        remove(shard, [*range(12), *range(ROWS, 2 * ROWS)])
        before = shard.stats().file_bytes
        done = shard.compact()
        assert 27 * dims <= sum(each.freed_bytes for each in done) < 30 * dims
        assert before - shard.stats().file_bytes >= 26 * dims
        assert shard.check().problems == ()


def test_a_segment_of_which_nothing_lives_loses_its_file(shard):
    remove(shard, range(ROWS, 2 * ROWS))
    (done,) = shard.compact()
    assert (done.segment, done.slots) == (1, 0)
    assert done.freed_bytes > 0
    assert not any(name.startswith("00000001") for name in files(shard))
    assert shard.stats().segments == 4
    assert shard.check().problems == ()


def test_segments_that_are_little_dead_stay_unless_they_are_asked_for(shard):
    remove(shard, [0, 1, 2, ROWS])
    assert shard.compact() == []
    (done,) = shard.compact(dead_share=0.15)
    assert done.segment == 0
    (done,) = shard.compact(dead_share=0)
    assert done.segment == 1
    assert shard.compact(dead_share=0) == []


def test_the_deadest_come_first_and_no_more_than_were_asked_for(shard):
    remove(shard, [*range(8), *range(ROWS, ROWS + 10), *range(2 * ROWS, 2 * ROWS + 6)])
    told = []
    done = shard.compact(most=2, progress=told.append)
    assert [each.segment for each in done] == [1, 0]
    assert told == done


def test_the_segment_that_is_added_to_is_left_alone(shard):
    remove(shard, range(4 * ROWS, 4 * ROWS + 5))
    assert shard.compact(dead_share=0) == []
    shard.insert([make_image(1000 + number) for number in range(ROWS)])
    (done,) = shard.compact()
    assert done.segment == 4
    assert shard.check().problems == ()


def test_a_compacted_segment_is_deleted_from_and_compacted_again(shard):
    remove(shard, range(0, ROWS, 2))
    shard.compact()
    remove(shard, range(1, 8, 2))
    assert shard.stats().dead_slots == 4
    assert shard.check().problems == ()
    (done,) = shard.compact()
    assert done.slots == 4
    assert "00000000-00000002.segment" in files(shard)
    assert shard.check().problems == ()
    assert {hit.id for hit in find(shard, QUERY)} == {
        make_id(number) for number in [*range(9, ROWS, 2), *range(ROWS, 4 * ROWS + 5)]
    }


def test_what_is_deleted_while_a_segment_is_copied_is_dead_in_the_copy(shard, monkeypatch):
    remove(shard, range(0, ROWS, 2))
    copy = compaction.copy_live

    def copy_and_delete(*args):
        copy(*args)
        remove(shard, [1, 3])
        shard.insert([make_image(2000)])

    monkeypatch.setattr(compaction, "copy_live", copy_and_delete)
    (done,) = shard.compact()
    assert done.slots == 8
    assert shard.stats().dead_slots == 2
    assert shard.check().problems == ()
    assert shard.get(make_id(1)) is None
    assert shard.get(make_id(2000)) is not None


def test_when_all_that_was_copied_is_deleted_meanwhile_no_file_is_left(shard, monkeypatch):
    remove(shard, range(0, ROWS, 2))
    copy = compaction.copy_live

    def copy_and_delete(*args):
        copy(*args)
        remove(shard, range(ROWS))

    monkeypatch.setattr(compaction, "copy_live", copy_and_delete)
    (done,) = shard.compact()
    assert done.slots == 0
    assert not any(name.startswith("00000000") for name in files(shard))
    assert shard.check().problems == ()


def test_two_that_compact_at_once_do_not_get_in_each_others_way(shard, monkeypatch):
    remove(shard, range(0, ROWS, 2))
    copy, others = compaction.copy_live, []

    def copy_meanwhile(*args):
        monkeypatch.setattr(compaction, "copy_live", copy)
        others.extend(shard.compact())
        copy(*args)

    monkeypatch.setattr(compaction, "copy_live", copy_meanwhile)
    assert len(shard.compact()) == 1
    assert others == []
    assert shard.check().problems == ()


def test_opening_deletes_what_a_killed_compaction_left_and_nothing_that_is_at_work(
    tmp_path, monkeypatch
):
    folder = tmp_path / "shard"
    with Shard.open(folder, make_spec(BITS)) as shard:
        shard.insert([make_image(number, BITS) for number in range(2 * ROWS)])
        (folder / "segments" / "00000000-00000001.draft").write_bytes(b"left")
        (folder / "segments" / "00000001-00000001.segment").write_bytes(b"left")
    with Shard.open(folder, make_spec(BITS)) as shard:
        assert files(shard) == ["00000000-00000000.segment", "00000001-00000000.segment"]
        remove(shard, range(0, ROWS, 2))
        copy = compaction.copy_live

        def copy_while_another_opens(*args):
            copy(*args)
            with keeper(folder, 1, "open"):
                pass

        monkeypatch.setattr(compaction, "copy_live", copy_while_another_opens)
        assert len(shard.compact()) == 1


def test_a_full_disk_leaves_the_segment_as_it_was(shard, monkeypatch):
    remove(shard, range(0, ROWS, 2))
    before = files(shard)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction, "copy_live", no_space)
    with pytest.raises(StoreFull, match="nothing of this change was stored"):
        shard.compact()
    assert files(shard) == before
    assert shard.check().problems == ()


def test_searches_and_writes_of_other_threads_go_on(shard):
    """Every search finds exactly what was there, however often the files change under it."""
    kept = {make_id(number) for number in range(0, 2 * ROWS, 3)}
    end, wrong = threading.Event(), []

    def search():
        while not end.is_set():
            found = {hit.id for hit in find(shard, QUERY)}
            if not kept <= found:
                wrong.append(kept - found)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(0)
    for number in range(12):
        shard.insert([make_image(5000 + 10 * number + i) for i in range(10)])
        remove(shard, [n for n in rng.integers(0, 5000 + 10 * number, 800) if n % 3])
        shard.compact(dead_share=0.01)
    end.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert shard.check().problems == ()


def test_a_check_goes_on_with_what_it_began_with_when_segments_are_compacted(shard, monkeypatch):
    remove(shard, range(0, 2 * ROWS, 2))
    check = shard_module.check_records

    def compact_first(store, keys):
        compacting = threading.Thread(target=shard.compact)
        compacting.start()
        compacting.join()
        return check(store, keys)

    monkeypatch.setattr(shard_module, "check_records", compact_first)
    assert shard.check().problems == ()
    assert shard.stats().dead_slots == 0
    assert not deleted_maps()


def test_another_process_that_only_reads_lets_go_of_the_old_files(tmp_path):
    """Mapped files keep their disk space, so a reader must not hold them for ever."""
    with Shard.open(tmp_path / "shard", make_spec()) as shard:
        shard.insert([make_image(number) for number in range(3 * ROWS)])
        shard.search(QUERY)
        # As if another process had compacted: this one is not told.
        forget = type(shard._files)._forget_removed
        remove(shard, range(0, ROWS, 2))
        type(shard._files)._forget_removed = lambda _: None
        try:
            shard.compact()
        finally:
            type(shard._files)._forget_removed = forget
        assert deleted_maps()
        shard.search(QUERY)
        assert not deleted_maps()


def deleted_maps():
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in maps if ".segment" in line and "(deleted)" in line]


def test_a_wrong_share_is_refused(shard):
    with pytest.raises(ValueError, match="from 0 to 1"):
        shard.compact(dead_share=1.5)


def test_a_process_killed_at_random_moments_leaves_exactly_what_it_committed(tmp_path):
    kill_again_and_again(tmp_path / "shard", "compact", times=8, seed=3, look=no_stray_files)


def no_stray_files(shard):
    assert len(files(shard)) == shard.stats().segments
