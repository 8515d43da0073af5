"""Damage that is done on purpose, and named by the check."""

import lmdb
import numpy as np
import pytest
from store_world import make_id, make_image, make_query, make_spec

from store import Shard, StoreDamaged, page_problems
from store.layout import DIRECTORY_KEY, bucket_key, row_key

COUNT = 60


@pytest.fixture(params=[20, 128])
def spec(request, tmp_path):
    made = make_spec(request.param)
    with Shard.open(tmp_path, made) as shard:
        shard.insert([make_image(number, made.bits) for number in range(COUNT)])
        assert shard.check().problems == ()
        assert shard.check().images == COUNT
    return made


def tamper(path, table, work):
    with lmdb.open(str(path), max_dbs=6, lib_version=0) as env:
        handle = env.open_db(table.encode(), create=False)
        with env.begin(write=True, db=handle) as txn:
            work(txn)


def problems(path, spec):
    with Shard.open(path, spec) as shard:
        report = shard.check()
    assert not report.ok
    return "\n".join(report.problems)


def drop_feature(txn):
    txn.delete(row_key(7))


def shorten_feature(txn):
    txn.put(row_key(7), txn.get(row_key(7))[:-1])


def swap_features(txn):
    txn.put(row_key(7), txn.get(row_key(8)))


def flip_feature_value(txn):
    value = bytearray(txn.get(row_key(7)))
    value[-1] ^= 0x40
    txn.put(row_key(7), bytes(value))


def flip_feature_scale(txn):
    value = bytearray(txn.get(row_key(7)))
    value[19] ^= 0x01
    txn.put(row_key(7), bytes(value))


def flip_source(txn):
    txn.put(row_key(7), txn.get(row_key(7)).replace(b"/photos/7.jpg", b"/photos/8.jpg"))


def drop_record(txn):
    txn.delete(row_key(7))


def garble_record(txn):
    txn.put(row_key(7), b"\xc1garbage")


def swap_records(txn):
    txn.put(row_key(7), txn.get(row_key(8)))


def drop_content(txn):
    txn.delete(bytes.fromhex(make_id(7)))


def misdirect_content(txn):
    txn.put(bytes.fromhex(make_id(7)), row_key(8))


def lower_next_row(txn):
    txn.put(b"next_row", row_key(7))


def drop_bucket_entry(txn):
    txn.cursor().first()
    cursor = txn.cursor()
    cursor.first()
    cursor.delete()


def move_bucket_entry(txn):
    cursor = txn.cursor()
    cursor.first()
    key, value = cursor.item()
    cursor.delete()
    txn.put(bucket_key(int.from_bytes(key, "big") + 1), value)


def flip_code(txn):
    cursor = txn.cursor()
    cursor.first()
    key, value = cursor.item()
    cursor.delete()
    txn.put(key, value[:-1] + bytes([value[-1] ^ 0x10]))


def drop_directory_line(txn):
    txn.delete(DIRECTORY_KEY, txn.get(DIRECTORY_KEY))


def miscount_directory_line(txn):
    line = txn.get(DIRECTORY_KEY)
    txn.delete(DIRECTORY_KEY, line)
    txn.put(DIRECTORY_KEY, line[:4] + (99).to_bytes(4, "little") + line[8:])


DAMAGES = [
    ("features", drop_feature, "the table features holds 59 images"),
    ("features", shorten_feature, "the feature of row 7 has"),
    ("features", swap_features, "the feature of row 7 belongs to another image"),
    ("features", flip_feature_value, "the feature of row 7 is not what was written"),
    ("features", flip_feature_scale, "the feature of row 7 is not what was written"),
    ("images", flip_source, "the record of row 7 cannot be read"),
    ("images", drop_record, "has no readable record"),
    ("images", garble_record, "the record of row 7 cannot be read"),
    ("images", swap_records, "is not in the content index"),
    ("content", drop_content, "is not in the content index"),
    ("content", misdirect_content, "leads to row 8, which is image"),
    ("meta", lower_next_row, "the next row to be given out is 7"),
    ("buckets", drop_bucket_entry, "the table buckets holds 59 images"),
    ("buckets", move_bucket_entry, "the directory says"),
    ("buckets", flip_code, "has another code in bucket"),
    ("directory", drop_directory_line, "is missing from the directory"),
    ("directory", miscount_directory_line, "the directory says 99"),
]


@pytest.mark.parametrize(
    ("table", "damage", "words"), DAMAGES, ids=lambda v: getattr(v, "__name__", "")
)
def test_every_damage_is_named(tmp_path, spec, table, damage, words):
    tamper(tmp_path, table, damage)
    assert words in problems(tmp_path, spec)


def test_a_radius_that_is_too_small_is_named(tmp_path):
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert([make_image(number, 128) for number in range(COUNT)])

    def shrink(txn):
        line = txn.get(DIRECTORY_KEY)
        txn.delete(DIRECTORY_KEY, line)
        txn.put(DIRECTORY_KEY, line[:8] + bytes(4))

    tamper(tmp_path, "directory", shrink)
    assert "beyond its radius" in problems(tmp_path, make_spec(128))


@pytest.mark.parametrize("damage", [drop_feature, shorten_feature])
def test_a_search_that_meets_damage_says_so(tmp_path, spec, damage):
    tamper(tmp_path, "features", damage)
    with (
        Shard.open(tmp_path, spec) as shard,
        pytest.raises(StoreDamaged, match="run the store check"),
    ):
        shard.search(make_query(make_image(1, spec.bits)))


def test_flipped_bits_in_the_pages_are_named_and_kill_nobody(tmp_path, spec):
    path = tmp_path / "data.mdb"
    whole = path.read_bytes()
    rng = np.random.default_rng(8)
    named = 0
    for page in rng.integers(2, len(whole) // 4096, 40):
        # The header of the page, or its first pointers.
        at = int(page) * 4096 + int(rng.integers(0, 24))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        if page_problems(tmp_path):
            named += 1
            continue
        with Shard.open(tmp_path, spec) as shard:
            assert shard.check().ok  # an unused page, or unused bytes of a page
    assert named > 10
