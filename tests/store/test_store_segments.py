"""The files of features alone, and features of a store that span several of them."""

import errno
import mmap
import os

import numpy as np
import pytest
from store_world import (
    DIMS,
    assert_same_hits,
    brute_force,
    find,
    make_id,
    make_image,
    make_query,
    make_spec,
)

from ops.drill.small import small_segments
from store import Shard, StoreDamaged, StoreFull, snapshot
from store.layout import HEAD
from store.segments import SEGMENT_ROWS, SegmentMoved, Segments, SegmentView, in_memory

ROWS = 8


@pytest.fixture
def files(tmp_path):
    opened = Segments(tmp_path, DIMS)
    yield opened
    opened.close()


@pytest.fixture
def shard(tmp_path):
    """Five segments of 8 rows, the last one of 3."""
    with small_segments(ROWS), Shard.open(tmp_path / "shard", make_spec()) as opened:
        opened.insert([make_image(number) for number in range(35)])
        yield opened
    with small_segments(ROWS), Shard.open(tmp_path / "shard", make_spec()) as opened:
        assert opened.check().problems == ()


def features(count, seed=0):
    rng = np.random.default_rng(seed)
    heads = rng.integers(0, 256, (count, HEAD.itemsize), np.uint8).view(HEAD)[:, 0]
    return heads, rng.integers(-127, 128, (count, DIMS), np.int8)


def assert_holds(view, slot, written):
    heads, values = written
    assert (view.heads[slot : slot + len(heads)] == heads).all()
    assert (view.values[slot : slot + len(heads)] == values).all()


def test_what_is_written_is_mapped(files):
    written = features(5)
    files.write(3, 0, 0, *written)
    view = files.view(3, 0, 5)
    assert_holds(view, 0, written)
    assert view.heads.shape == (SEGMENT_ROWS,)
    assert view.values.shape[1] == DIMS
    assert not view.values.flags.writeable


def test_a_map_sees_what_is_written_into_its_file_later(files):
    first, second = features(5, 1), features(3, 2)
    files.write(0, 0, 0, *first)
    view = files.view(0, 0, 5)
    files.write(0, 0, 5, *second)
    assert files.view(0, 0, 8) is view
    assert_holds(view, 0, first)
    assert_holds(view, 5, second)


def test_a_file_that_has_grown_is_mapped_anew_and_the_old_map_lives_on(files):
    first = features(5, 1)
    files.write(0, 0, 0, *first)
    old = files.view(0, 0, 5)
    slots = len(old.values)
    second = features(10, 2)
    files.write(0, 0, slots - 2, *second)
    new = files.view(0, 0, slots + 8)
    assert new is not old
    assert_holds(new, 0, first)
    assert_holds(new, slots - 2, second)
    assert_holds(old, 0, first)


def test_a_write_that_was_not_counted_is_written_over(files):
    files.write(0, 0, 0, *features(50, 1))
    second = features(3, 2)
    files.write(0, 0, 0, *second)
    assert_holds(files.view(0, 0, 3), 0, second)


def test_the_last_slot_of_a_segment_is_as_good_as_the_first(files):
    written = features(2)
    files.write(0, 0, SEGMENT_ROWS - 2, *written)
    assert_holds(files.view(0, 0, SEGMENT_ROWS), SEGMENT_ROWS - 2, written)
    assert files.path(0, 0).stat().st_size == SEGMENT_ROWS * (HEAD.itemsize + DIMS)


def test_a_file_of_a_few_slots_takes_little_of_the_disk(files):
    files.write(0, 0, 0, *features(5))
    assert 0 < files.file_bytes() < 200_000 < files.path(0, 0).stat().st_size


def test_a_file_that_is_not_there_has_moved(files):
    files.write(0, 0, 0, *features(5))
    for use in (files.view, files.is_whole):
        with pytest.raises(SegmentMoved):
            use(0, 1, 5)
    with pytest.raises(StoreDamaged, match="cut off"):
        files.insist_on(0, 1, 5)


def test_a_file_that_is_too_short_is_damaged(files):
    files.write(0, 0, 0, *features(5))
    slots = len(files.view(0, 0, 5).values)
    assert files.is_whole(0, 0, slots)
    assert not files.is_whole(0, 0, slots + 1)
    for use in (files.view, files.insist_on):
        with pytest.raises(StoreDamaged, match="cut off"):
            use(0, 0, slots + 1)


def test_files_that_nothing_refers_to_are_removed_and_no_others(files):
    for name in [(0, 0), (0, 1), (1, 0), (7, 12)]:
        files.write(*name, 0, *features(2))
    stranger = files.folder / "notes.txt"
    stranger.write_text("keep")
    kept = files.view(0, 1, 2)
    removed = files.view(1, 0, 2)
    files.remove_others({(0, 1)})
    assert {path.name for path in files.folder.iterdir()} == {stranger.name, files.path(0, 1).name}
    assert files.view(0, 1, 2) is kept
    assert_holds(removed, 0, features(2))
    with pytest.raises(SegmentMoved):
        files.view(1, 0, 2)


def test_a_page_that_was_just_written_is_in_memory(files):
    files.write(0, 0, 0, *features(50))
    view = files.view(0, 0, 50)
    assert in_memory(view, files.path(0, 0), np.arange(0, 50, 7))
    # Where nothing can be told, nothing is asked of the disk either.
    assert in_memory(view, files.path(0, 1), np.arange(3))


@pytest.mark.parametrize("slots", [[0], [49], [3, 3, 48], list(range(0, 50, 7))])
def test_expecting_slots_asks_once_for_each_page_that_holds_a_head_or_values(files, slots):
    files.write(0, 0, 0, *features(50))
    view = files.view(0, 0, 50)
    asked = AskedFor()
    SegmentView(view.heads, view.values, asked).expect(np.array(slots, np.int64))
    view.expect(np.array(slots, np.int64))
    pages = [page for start, length in asked.ranges for page in pages_of(start, length)]
    assert all(start % mmap.PAGESIZE == 0 for start, _ in asked.ranges)
    assert len(pages) == len(set(pages))
    values_at, head = SEGMENT_ROWS * HEAD.itemsize, HEAD.itemsize
    for slot in slots:
        assert set(pages) >= set(pages_of(slot * head, head))
        assert set(pages) >= set(pages_of(values_at + slot * DIMS, DIMS))


def pages_of(start, length):
    return range(start // mmap.PAGESIZE, -(-(start + length) // mmap.PAGESIZE))


class AskedFor:
    """Stands for a map, and remembers what it was asked for."""

    def __init__(self):
        self.ranges = []

    def madvise(self, advice, start, length):
        assert advice == mmap.MADV_WILLNEED
        self.ranges.append((start, length))


def test_one_batch_may_span_several_segments(shard):
    stats = shard.stats()
    assert (stats.segments, stats.images) == (5, 35)
    query = make_query(make_image(1), k=100)
    images = [make_image(number) for number in range(35)]
    assert_same_hits(find(shard, query), brute_force(shard, images, query))


def test_images_added_one_by_one_lie_where_those_of_one_batch_lie(shard, tmp_path):
    with Shard.open(tmp_path / "slow", make_spec()) as slow:
        for number in range(35):
            slow.insert([make_image(number)])
        for file in (shard.path / "segments").iterdir():
            assert (slow.path / "segments" / file.name).read_bytes() == file.read_bytes()


def test_features_come_in_the_order_of_the_rows(shard):
    rows = np.array([0, 7, 8, 9, 23, 34])
    heads, values = np.empty(6, HEAD), np.empty((6, DIMS), np.int8)
    shard._read(lambda store: store.features(rows, heads, values))
    assert [head["id"].tobytes().hex() for head in heads] == [make_id(row) for row in rows]
    for row, one in zip(rows, values, strict=True):
        _, alone = shard._read(lambda store, row=row: store.feature(row))
        assert (alone[0] == one).all()
    assert (shard._read(lambda store: store.heads(rows)) == heads).all()


@pytest.mark.parametrize("row", [35, 39, 40, 1000])
def test_a_row_without_a_feature_is_damage(shard, row):
    with pytest.raises(StoreDamaged, match="run the store check"):
        shard._read(lambda store: store.heads(np.array([3, row])))


def test_deleting_counts_the_dead_slots_of_each_segment(shard):
    shard.delete([make_id(number) for number in (0, 1, 9, 34, 34, 99)])
    dead = shard._read(lambda store: [segment.dead for segment in store.segments()])
    assert dead == [2, 1, 0, 0, 1]
    assert shard.stats().dead_slots == 4


def test_opening_removes_files_of_no_segment(shard):
    shard.close()
    left = shard.path / "segments" / "00000002-00000001.segment"
    left.write_bytes(b"cut off")
    with Shard.open(shard.path, make_spec()) as again:
        assert not left.exists()
        assert again.check().problems == ()


FAILING = [("pwrite", 1), ("pwrite", 2), ("fdatasync", 1), ("ftruncate", 1), ("fsync", 1)]


@pytest.mark.parametrize(("call", "number"), FAILING)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_while_features_are_written_loses_nothing(
    tmp_path, monkeypatch, call, number, code
):
    calls, real = [], getattr(os, call)

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    with small_segments(ROWS), Shard.open(tmp_path, make_spec()) as shard:
        shard.insert([make_image(number) for number in range(ROWS - 2)])
        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            with pytest.raises(StoreFull, match="nothing of this change was stored"):
                shard.insert([make_image(number) for number in range(100, 110)])
        assert shard.count() == ROWS - 2
        assert shard.check().problems == ()
        images = [make_image(number) for number in range(ROWS + 2)]
        assert all(outcome.created for outcome in shard.insert(images))
        assert shard.check().problems == ()
        query = make_query(images[0], k=100)
        assert_same_hits(find(shard, query), brute_force(shard, images, query))


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(files, monkeypatch):
    real, written = os.pwrite, features(10)
    monkeypatch.setattr(os, "pwrite", lambda to, data, at: real(to, data[:7], at))
    files.write(0, 0, 3, *written)
    assert_holds(files.view(0, 0, 13), 3, written)


def test_a_file_compacted_under_a_search_is_looked_for_anew(shard, monkeypatch):
    view, gone = Segments.view, []

    def vanish_once(files, *name):
        if not gone:
            gone.append(name)
            raise SegmentMoved
        return view(files, *name)

    monkeypatch.setattr(Segments, "view", vanish_once)
    assert len(shard.search(make_query(make_image(1), k=100))) == 35
    assert gone


def test_a_file_that_stays_away_is_damage(shard, monkeypatch):
    def vanish(*_):
        raise SegmentMoved

    with monkeypatch.context() as patched:
        patched.setattr(Segments, "view", vanish)
        with pytest.raises(StoreDamaged, match="restore a backup"):
            shard.search(make_query(make_image(1)))
        (problem,) = shard.check().problems
        assert "is missing" in problem


@pytest.mark.parametrize("cold", [True, False])
def test_features_on_the_disk_are_asked_for_before_they_are_read(shard, monkeypatch, cold):
    asked, expect = [], SegmentView.expect

    def remember(view, slots):
        asked.extend(slots.tolist())
        expect(view, slots)

    query = make_query(make_image(1), k=20, candidates=20)
    warm = shard.search(query)
    monkeypatch.setattr(SegmentView, "expect", remember)
    monkeypatch.setattr(snapshot, "in_memory", lambda *_: not cold)
    assert shard.search(query) == warm
    rows = shard.candidates(query).rows
    assert asked == ((rows % ROWS).tolist() if cold else [])


def test_only_the_segment_most_asked_for_is_sampled(shard, monkeypatch):
    sampled = []

    def remember(view, path, slots):
        sampled.append((path.name, slots.tolist()))
        return True

    monkeypatch.setattr(snapshot, "in_memory", remember)
    shard._read(lambda store: store.expect(list(store.parts(np.array([1, 9, 10, 17])))))
    assert sampled == [("00000001-00000000.segment", [1, 2])]
    shard._read(lambda store: store.expect([]))
    assert len(sampled) == 1
