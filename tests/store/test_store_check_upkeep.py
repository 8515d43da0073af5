"""Damage to what compaction and retraining leave behind, done on purpose, and named."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from store_world import make_id, make_image, make_spec
from test_store_check import tamper

from ops.drill.small import small_segments
from store import Shard, StoreDamaged
from store import shard as shard_module
from store.layout import SEGMENT_ENTRY, centres_key, number_key

ROWS = 16
COUNT = 40


@pytest.fixture(autouse=True)
def few_rows():
    with small_segments(ROWS):
        yield


@pytest.fixture
def compacted(tmp_path):
    """Segments of 16 rows: one of which rows 8 to 15 are left, one whole, one begun."""
    with Shard.open(tmp_path, make_spec()) as shard:
        shard.insert([make_image(number) for number in range(COUNT)])
        shard.delete([make_id(number) for number in range(8)])
        assert len(shard.compact()) == 1
        assert shard.check().problems == ()
    return tmp_path


@pytest.fixture
def half_refiled(tmp_path):
    """Images 0 to 9 are filed anew, 40 and 41 in both generations, and the others will be."""
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert([make_image(number, 128) for number in range(COUNT)])
        shard.begin_retraining(np.random.default_rng(1).integers(0, 256, (4, 16), np.uint8))
        shard.retrain_step(10)
        shard.insert([make_image(number, 128) for number in (40, 41)])
        shard.delete([make_id(3), make_id(30)])
        assert shard.check().problems == ()
    return tmp_path


def problems(path, bits=20):
    with Shard.open(path, make_spec(bits)) as shard:
        return "\n".join(shard.check().problems)


def change_places(path, work):
    def change(txn):
        packed = txn.get(number_key(0))
        size = SEGMENT_ENTRY.itemsize
        places = np.frombuffer(packed[size:], np.uint16).copy()
        txn.put(number_key(0), packed[:size] + work(places).tobytes())

    tamper(path, "segments", change)


def swapped(places):
    return places[[1, 0, *range(2, len(places))]]


def moved(places):
    return places - 1


def test_slots_of_a_compacted_segment_in_another_order_are_named(compacted):
    change_places(compacted, swapped)
    said = problems(compacted)
    assert "the slots of segment 0 are not in the order of their rows" in said
    assert "the feature of row 8 belongs to another image" in said


def test_slots_of_a_compacted_segment_that_are_of_other_rows_are_named(compacted):
    change_places(compacted, moved)
    said = problems(compacted)
    assert "row 15 has no feature" in said
    assert "segment 0 has 1 slots without an image, and says 0" in said


@pytest.mark.parametrize("cut", [1, 2, 17, 25])
def test_an_entry_of_a_segment_that_was_cut_off_is_noticed_at_opening(compacted, cut):
    tamper(
        compacted,
        "segments",
        lambda txn: txn.put(number_key(0), txn.get(number_key(0))[:-cut]),
    )
    with pytest.raises(StoreDamaged, match="segment 0 cannot be read; restore a backup"):
        Shard.open(compacted, make_spec())


def test_a_check_lives_through_a_compaction(compacted, monkeypatch):
    with Shard.open(compacted, make_spec()) as shard, ThreadPoolExecutor(1) as other:
        shard.delete([make_id(number) for number in range(16, 28)])
        check, done = shard_module.check_records, []

        def compact_first(store, keys):
            done.append(other.submit(shard.compact).result())
            return check(store, keys)

        monkeypatch.setattr(shard_module, "check_records", compact_first)
        assert shard.check().problems == ()
        assert [[each.segment for each in run] for run in done] == [[1]]


def drop_from_coming(txn):
    cursor = txn.cursor()
    assert cursor.set_range(number_key(1))
    cursor.delete()


def test_an_image_that_was_filed_anew_and_is_missing_is_named(half_refiled):
    tamper(half_refiled, "buckets", drop_from_coming)
    assert "the directory says" in problems(half_refiled, 128)


def test_a_bucket_filed_anew_that_is_missing_with_its_line_is_named(half_refiled):
    def drop_line(txn):
        cursor = txn.cursor()
        assert cursor.set_key(number_key(1))
        dropped.append(cursor.value())
        cursor.delete()

    def drop_bucket(txn):
        assert txn.delete(number_key(1) + dropped[0][:4])

    dropped = []
    tamper(half_refiled, "directory", drop_line)
    tamper(half_refiled, "buckets", drop_bucket)
    count = int.from_bytes(dropped[0][4:8], "little")
    assert problems(half_refiled, 128) == (
        f"the buckets hold {11 - count} images, the records are 11"
    )


def test_centres_that_are_missing_are_named(half_refiled):
    tamper(half_refiled, "meta", lambda txn: txn.delete(centres_key(1)))
    assert "the centres of generation 1 are missing" in problems(half_refiled, 128)
