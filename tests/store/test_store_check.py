"""Damage that is done on purpose, and named by the check."""

import mmap
import os
import struct
from dataclasses import replace

import lmdb
import msgpack
import numpy as np
import pytest
from lmdb import verify
from store_world import DIMS, make_id, make_image, make_query, make_spec

from store import Shard, StoreDamaged, page_problems
from store.datafile import data_path
from store.layout import HEAD, SEGMENT_ENTRY, bucket_keys, number_key, row_key
from store.segments import SEGMENT_ROWS

COUNT = 60


@pytest.fixture(params=[20, 128])
def spec(request, tmp_path):
    made = make_spec(request.param)
    with Shard.open(tmp_path, made) as shard:
        shard.insert([labelled(number, made.bits) for number in range(COUNT)])
        assert shard.check().problems == ()
        assert shard.check().images == COUNT
    return made


def labelled(number, bits):
    return make_image(number, bits, labels=() if number % 2 else ("even",))


def tamper(path, table, work):
    with lmdb.open(str(path), max_dbs=8, lib_version=0) as env:
        handle = env.open_db(table.encode(), create=False)
        with env.begin(write=True, db=handle) as txn:
            work(txn)


def problems(path, spec):
    with Shard.open(path, spec) as shard:
        report = shard.check()
    assert not report.ok
    return "\n".join(report.problems)


def file_of(path):
    (file,) = (path / "segments").iterdir()
    return file


def change_slot(path, slot, work):
    """Change the head and the values of a slot, which are writable arrays."""
    content = bytearray(file_of(path).read_bytes())
    heads = np.frombuffer(content, HEAD, SEGMENT_ROWS)
    values = np.frombuffer(content, np.int8, offset=heads.nbytes).reshape(-1, DIMS)
    work(heads, values, slot)
    file_of(path).write_bytes(content)


def flip_value(heads, values, slot):
    values[slot, 3] ^= 0x40


def flip_scale(heads, values, slot):
    heads.view("u1").reshape(-1, HEAD.itemsize)[slot, 19] ^= 0x01


def flip_id(heads, values, slot):
    heads["id"][slot, 15] ^= 0x01


def flip_square(heads, values, slot):
    heads["square"][slot] ^= 0x100


def flip_time(heads, values, slot):
    heads["added"][slot] += 1


def flip_checksum(heads, values, slot):
    heads["crc"][slot] ^= 0x1000


def swap_heads(heads, values, slot):
    heads[[slot, slot + 1]] = heads[[slot + 1, slot]]


def swap_slots(heads, values, slot):
    swap_heads(heads, values, slot)
    values[[slot, slot + 1]] = values[[slot + 1, slot]]


def drop_segment(txn):
    txn.delete(number_key(0))


def lower_slots(txn):
    entry = np.frombuffer(txn.get(number_key(0)), SEGMENT_ENTRY).copy()
    entry["slots"] -= 1
    txn.put(number_key(0), entry.tobytes())


def miscount_dead_slots(txn):
    entry = np.frombuffer(txn.get(number_key(0)), SEGMENT_ENTRY).copy()
    entry["dead"] = 5
    txn.put(number_key(0), entry.tobytes())


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


def take_first(txn):
    cursor = txn.cursor()
    cursor.first()
    item = cursor.item()
    cursor.delete()
    return item


def drop_bucket_entry(txn):
    take_first(txn)


def move_bucket_entry(txn):
    name, entry = take_first(txn)
    generation, key = np.frombuffer(name, ">u4")
    txn.put(*bucket_keys(generation, np.array([key + 1])), entry)


def move_bucket_entry_to_another_generation(txn):
    name, entry = take_first(txn)
    txn.put(*bucket_keys(1, np.frombuffer(name, ">u4")[1:]), entry)


def flip_code(txn):
    name, entry = take_first(txn)
    txn.put(name, entry[:8] + bytes([entry[8] ^ 0x10]) + entry[9:])


def flip_padding_of_code(txn):
    name, entry = take_first(txn)
    # The last byte of the 20 bits; of 128 bits every byte counts.
    txn.put(name, entry[:-1] + bytes([entry[-1] ^ 0x01]))


def drop_directory_line(txn):
    take_first(txn)


def miscount_directory_line(txn):
    generation, line = take_first(txn)
    txn.put(generation, line[:4] + (99).to_bytes(4, "little") + line[8:])


def shrink_radius(txn):
    generation, line = take_first(txn)
    txn.put(generation, line[:8] + bytes(4))


def drop_label(txn):
    txn.delete(b"even", row_key(8))


def invent_label(txn):
    txn.put(b"odd", row_key(8))


DAMAGES = [
    ("segments", drop_segment, "row 7 has no feature"),
    ("segments", lower_slots, "row 59 has no feature"),
    ("segments", miscount_dead_slots, "has 0 slots without an image, and says 5"),
    ("images", flip_source, "the record of row 7 cannot be read"),
    ("images", drop_record, "has no readable record"),
    ("images", drop_record, "the content index holds 60 images, the records are 59"),
    ("images", garble_record, "the record of row 7 cannot be read"),
    ("images", swap_records, "is not in the content index"),
    ("content", drop_content, "is not in the content index"),
    ("content", misdirect_content, "leads to row 8, which is image"),
    ("meta", lower_next_row, "the next row to be given out is 7"),
    ("buckets", drop_bucket_entry, "the directory says"),
    ("buckets", move_bucket_entry, "the directory says"),
    ("buckets", move_bucket_entry_to_another_generation, "the directory says"),
    ("buckets", flip_code, "has another code in bucket"),
    ("buckets", flip_padding_of_code, "has another code in bucket"),
    ("directory", drop_directory_line, "is missing from the directory"),
    ("directory", drop_directory_line, "the records are 60"),
    ("directory", miscount_directory_line, "the directory says 99"),
    ("labels", drop_label, "row 8 has the label 'even' and does not stand under it"),
    ("labels", invent_label, "row 8 stands under the label 'odd', which its record lacks"),
]

DAMAGED_SLOTS = [
    (flip_value, "the feature of row 7 is not what was written"),
    (flip_scale, "the feature of row 7 is not what was written"),
    (flip_id, "the feature of row 7 is not what was written"),
    (flip_square, "the feature of row 7 is not what was written"),
    (flip_time, "the feature of row 7 is not what was written"),
    (flip_checksum, "the feature of row 7 is not what was written"),
    (swap_heads, "the feature of row 8 belongs to another image"),
    (swap_slots, "the feature of row 8 belongs to another image"),
]


@pytest.mark.parametrize(
    ("table", "damage", "words"), DAMAGES, ids=lambda v: getattr(v, "__name__", "")
)
def test_every_damage_is_named(tmp_path, spec, table, damage, words):
    tamper(tmp_path, table, damage)
    assert words in problems(tmp_path, spec)


@pytest.mark.parametrize(
    ("damage", "words"), DAMAGED_SLOTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_every_damaged_slot_is_named(tmp_path, spec, damage, words):
    change_slot(tmp_path, 7, damage)
    assert words in problems(tmp_path, spec)


def test_every_flipped_bit_of_a_feature_is_named_and_no_other(tmp_path, spec):
    whole, values_at = file_of(tmp_path).read_bytes(), SEGMENT_ROWS * HEAD.itemsize
    rng = np.random.default_rng(9)
    with Shard.open(tmp_path, spec) as shard:
        shard.delete([make_id(7)])
    for start, size in ((0, HEAD.itemsize), (values_at, DIMS)):
        for at in rng.integers(0, (COUNT + 3) * size, 15).tolist():
            flipped = bytearray(whole)
            flipped[start + at] ^= 1 << rng.integers(8)
            file_of(tmp_path).write_bytes(flipped)
            row = at // size
            with Shard.open(tmp_path, spec) as shard:
                named = [f"the feature of row {row} " in line for line in shard.check().problems]
            assert all(named)
            assert bool(named) == (row < COUNT and row != 7)


def test_slots_that_do_not_count_may_hold_anything(tmp_path, spec):
    for slot in (COUNT, COUNT + 500):
        change_slot(tmp_path, slot, flip_value)
        change_slot(tmp_path, slot, flip_id)
    with Shard.open(tmp_path, spec) as shard:
        assert shard.check().ok
        shard.insert([make_image(COUNT, spec.bits)])
        assert shard.check().ok


def test_a_radius_that_is_too_small_is_named(tmp_path):
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert([make_image(number, 128) for number in range(COUNT)])
    tamper(tmp_path, "directory", shrink_radius)
    assert "beyond its radius" in problems(tmp_path, make_spec(128))


def remove(path):
    path.unlink()


def cut_off_values(path):
    os.truncate(path, SEGMENT_ROWS * HEAD.itemsize + COUNT * DIMS - 1)


def cut_off_heads(path):
    os.truncate(path, 100)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [remove, cut_off_values, cut_off_heads, empty])
def test_a_segment_that_is_missing_or_cut_off_is_noticed_at_opening(tmp_path, spec, damage):
    damage(file_of(tmp_path))
    for use in (lambda: Shard.open(tmp_path, spec), lambda: Shard.open_existing(tmp_path)):
        with pytest.raises(StoreDamaged, match=r"segment has \d+ bytes .* restore a backup"):
            use()


@pytest.mark.parametrize("damage", [remove, cut_off_values, cut_off_heads, empty])
def test_a_segment_lost_in_use_is_named_by_the_check(tmp_path, spec, damage):
    with Shard.open(tmp_path, spec) as shard:
        shard.search(make_query(make_image(1, spec.bits)))
        damage(file_of(tmp_path))
        (problem,) = shard.check().problems
        assert "is missing" in problem if damage is remove else "was cut off" in problem


def test_a_cut_off_segment_that_lacks_only_empty_slots_opens(tmp_path, spec):
    os.truncate(file_of(tmp_path), SEGMENT_ROWS * HEAD.itemsize + COUNT * DIMS)
    with Shard.open(tmp_path, spec) as shard:
        assert shard.check().ok
        shard.insert([make_image(COUNT, spec.bits)])
        assert shard.check().ok


@pytest.mark.parametrize("damage", [drop_segment, lower_slots])
def test_a_search_that_meets_damage_says_so(tmp_path, spec, damage):
    tamper(tmp_path, "segments", damage)
    with (
        Shard.open(tmp_path, spec) as shard,
        pytest.raises(StoreDamaged, match="run the store check"),
    ):
        shard.search(make_query(make_image(1, spec.bits), k=COUNT))


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


@pytest.mark.parametrize("bits", [20, 40])
def test_a_bucket_of_many_images_that_is_emptied_is_no_damage(tmp_path, bits):
    """LMDB counts its pages for ever; nothing but its statistics depends on the count."""
    alike = make_image(0, bits)
    with Shard.open(tmp_path, make_spec(bits)) as shard:
        shard.insert([replace(alike, id=make_id(number)) for number in range(1500)])
        shard.delete([make_id(number) for number in range(1500)])
        assert shard.check().problems == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"spec", b"\x94\xa7bund\xb1le\x80\x10\xa6cosine"),
        (b"spec", b"\x94\xa6bundle"),
        (b"spec", b"\x10"),
        (b"spec", msgpack.packb(("bundle", 0, 16, "cosine"))),
        (b"spec", msgpack.packb(("bundle", "128", 16, "cosine"))),
        (b"format", b"\x92"),
    ],
)
def test_a_damaged_header_is_named_at_opening(spec, tmp_path, name, value):
    tamper(tmp_path, "meta", lambda txn: txn.put(name, value))
    with pytest.raises(StoreDamaged, match="the header cannot be read; restore a backup"):
        Shard.open(tmp_path, spec)
    with pytest.raises(StoreDamaged, match="the header cannot be read; restore a backup"):
        Shard.open_existing(tmp_path)


def test_centres_that_were_cut_off_are_named_at_opening(tmp_path):
    centres = np.eye(4, 16, dtype=np.uint8)
    spec = replace(make_spec(128), centres=centres)
    Shard.open(tmp_path, spec).close()
    tamper(tmp_path, "meta", lambda txn: txn.put(b"centres", centres.tobytes()[:-1]))
    with pytest.raises(StoreDamaged, match="the header cannot be read; restore a backup"):
        Shard.open(tmp_path, spec)


def forget_free_pages(path):
    """Drop the last list of free pages, as LMDB once did when a process was killed."""
    content = bytearray(data_path(path).read_bytes())
    # Both headers: the page's own 16 bytes, 24 of magic and sizes, and the free pages' table.
    headers = [place + 16 for place in (0, mmap.PAGESIZE)]
    header = max(headers, key=lambda at: struct.unpack_from("<Q", content, at + 128))
    (entries, root) = struct.unpack_from("<QQ", content, header + 24 + 32)
    struct.pack_into("<Q", content, header + 24 + 32, entries - 1)
    leaf = root * mmap.PAGESIZE + 12
    (lower,) = struct.unpack_from("<H", content, leaf)
    struct.pack_into("<H", content, leaf, lower - 2)
    data_path(path).write_bytes(content)


def test_room_that_lmdb_has_lost_is_no_damage(spec, tmp_path):
    with Shard.open(tmp_path, spec) as shard:
        shard.delete([make_id(number) for number in range(30)])
    forget_free_pages(tmp_path)
    (lost,) = verify.verify(data_path(tmp_path))
    assert "neither reachable nor in the freeDB" in lost
    assert page_problems(tmp_path) == []
    with Shard.open(tmp_path, spec) as shard:
        assert shard.check().ok
        shard.insert([labelled(number, spec.bits) for number in range(COUNT)])
        assert shard.check().ok
        assert shard.count() == COUNT
