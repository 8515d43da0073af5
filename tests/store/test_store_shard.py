from dataclasses import replace

import numpy as np
import pytest
from store_world import DIMS, find, make_id, make_image, make_query, make_spec

from store import Inserted, Partial, Shard, StoreClosed, writing
from store.values import restore
from store.writing import MOST_SOURCES


@pytest.fixture
def shard(tmp_path):
    with Shard.open(tmp_path / "shard", make_spec()) as opened:
        yield opened
        assert opened.check().problems == ()


def test_an_inserted_image_is_found_with_its_record(shard):
    image = make_image(1)
    assert shard.insert([image]) == [Inserted(image.id, created=True)]
    record = shard.get(image.id)
    assert (record.row, record.sources, record.origin) == (0, (image.source,), image.origin)
    assert (record.added_at, record.width_px, record.height_px) == (1_700_000_001.0, 640, 480)
    assert (record.format, record.size_bytes) == ("JPEG", 12_345)
    assert shard.count() == 1


@pytest.mark.parametrize("bits", [1, 12, 20, 24, 25, 128])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_every_stored_image_finds_itself_first(tmp_path, bits, metric):
    images = [make_image(number, bits) for number in range(40)]
    with Shard.open(tmp_path / "shard", make_spec(bits, metric=metric)) as shard:
        shard.insert(images)
        for image in images:
            code, feature = shard.vectors(image.id)
            assert (code == image.code).all()
            assert feature == pytest.approx(image.feature, abs=0.02)
            stored = replace(image, feature=feature)
            (hit,) = find(shard, make_query(stored, k=1))
            assert (hit.id, hit.hamming) == (image.id, 0)
            assert hit.distance == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bits", [20, 128])
def test_a_batch_prepared_in_parts_is_stored_like_one_that_is_not(tmp_path, monkeypatch, bits):
    images = [make_image(number % 80, bits, origin=str(number // 50)) for number in range(100)]
    with (
        Shard.open(tmp_path / "whole", make_spec(bits)) as whole,
        Shard.open(tmp_path / "parts", make_spec(bits)) as parts,
    ):
        outcomes = whole.insert(images)
        monkeypatch.setattr(writing, "_PART", 7)
        assert parts.insert(images) == outcomes
        assert parts.recent(100) == whole.recent(100)
        files = [next((shard.path / "segments").iterdir()) for shard in (whole, parts)]
        assert files[0].read_bytes() == files[1].read_bytes()
        query = make_query(images[0], candidates=30)
        assert parts.search(query) == whole.search(query)
        assert parts.check().problems == ()


def test_a_malformed_image_in_any_part_of_a_batch_is_refused_with_all_of_it(shard, monkeypatch):
    monkeypatch.setattr(writing, "_PART", 3)
    images = [make_image(number) for number in range(10)]
    images[7] = replace(images[7], feature=np.full(8, np.nan, np.float32))
    with pytest.raises(ValueError, match="finite"):
        shard.insert(images)
    assert shard.count() == 0


@pytest.mark.parametrize("again", [False, True])
def test_a_batch_prepared_while_a_retraining_ends_is_filed_by_the_new_centres(tmp_path, again):
    centres = np.random.default_rng(3).integers(0, 256, (4, 16), np.uint8)
    images = [make_image(number, 128) for number in range(60)]
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert(images[:20])
        first = writing.prepare(images[20:40], shard.spec, shard._keys)
        shard.retrain(centres)
        if again:
            shard.begin_retraining(centres[:2])
            shard.retrain_step(5)
        shard._write(lambda store: writing.insert(store, first, shard._keys))
        shard.search(make_query(images[0]))
        shard.insert(images[40:])
        shard.retrain()
        assert shard.check().problems == ()
        assert len(shard.search(make_query(images[0], k=100))) == 60


def test_a_second_delivery_has_the_same_outcome(shard):
    batch = [make_image(1), make_image(2)]
    first = shard.insert(batch)
    before = shard.get(make_id(1))
    assert shard.insert(batch) == first
    assert shard.get(make_id(1)) == before
    assert shard.count() == 2


def test_the_same_content_from_elsewhere_is_a_duplicate_with_another_source(shard):
    shard.insert([make_image(1)])
    again = make_image(1, origin="other", source="http://example.org/1")
    assert shard.insert([again]) == [Inserted(make_id(1), created=False)]
    assert shard.insert([again]) == [Inserted(make_id(1), created=False)]
    assert shard.get(make_id(1)).sources == ("/photos/1.jpg", "http://example.org/1")
    assert shard.get(make_id(1)).origin == "item-1"
    assert shard.count() == 1


def test_within_one_batch_the_first_creates_and_the_second_is_a_duplicate(shard):
    batch = [make_image(1, origin="a"), make_image(1, origin="b", source="b.jpg")]
    outcomes = [Inserted(make_id(1), created=True), Inserted(make_id(1), created=False)]
    assert shard.insert(batch) == outcomes
    assert shard.insert(batch) == outcomes
    assert shard.get(make_id(1)).sources == ("/photos/1.jpg", "b.jpg")


def test_the_list_of_sources_is_bounded(shard):
    for number in range(MOST_SOURCES + 5):
        shard.insert([make_image(1, origin=str(number), source=str(number))])
    assert shard.get(make_id(1)).sources == tuple(map(str, range(MOST_SOURCES)))


def test_a_path_that_is_not_utf8_survives(shard):
    shard.insert([make_image(1, source="/photos/caf\udce9.jpg")])
    assert shard.get(make_id(1)).sources == ("/photos/caf\udce9.jpg",)


def test_a_deleted_image_is_not_found_again(shard):
    images = [make_image(number) for number in range(20)]
    shard.insert(images)
    gone = [image.id for image in images[:10]]
    assert shard.delete([*gone, gone[0], make_id(99), "no id"]) == [True] * 10 + [False] * 3
    assert shard.count() == 10
    assert shard.get(gone[0]) is None
    assert shard.vectors(gone[0]) is None
    found = shard.search(make_query(images[0], k=50)).names()
    assert set(found) == {image.id for image in images[10:]}


def test_features_are_read_in_bulk_in_any_order_and_tell_which_are_missing(shard):
    images = [make_image(number) for number in range(30)]
    shard.insert(images)
    shard.delete([images[4].id, images[20].id])
    names = [images[number].id for number in (7, 4, 29, 0, 20, 7, 13)]
    found = shard.features(ids_of([*names, make_id(99)]))
    assert found.there.tolist() == [True, False, True, True, False, True, True, False]
    features = [shard.vectors(name)[1] for name in names if name not in (names[1], names[4])]
    assert np.array_equal(restore(found.values, found.scales), features)
    assert (found.squares == (found.values.astype(int) ** 2).sum(axis=1)).all()
    assert shard.features(ids_of([])).values.shape == (0, DIMS)


def ids_of(names):
    return np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(-1, 16)


def test_an_image_deleted_since_the_search_is_left_out_of_its_hits(shard):
    shard.insert([make_image(number) for number in range(10)])
    answer = shard.search(make_query(make_image(3), k=10))
    whole = shard.hits(answer)
    shard.delete([whole[0].id, whole[4].id])
    assert shard.hits(answer) == whole[1:4] + whole[5:]
    shard.insert([make_image(3, source="again")])
    assert shard.hits(answer)[0].sources == ("again",)
    assert len(shard.hits(answer)) == 9


def test_hits_show_what_is_known_of_an_image_by_now(shard):
    shard.insert([make_image(1)])
    answer = shard.search(make_query(make_image(1)))
    shard.insert([make_image(1, origin="other", source="b.jpg", labels=("new",))])
    (hit,) = shard.hits(answer)
    assert (hit.sources, hit.labels) == (("/photos/1.jpg", "b.jpg"), ("new",))
    assert (hit.added_at, hit.width_px, hit.format) == (1_700_000_001.0, 640, "JPEG")


def test_a_row_number_is_never_given_out_twice(shard):
    shard.insert([make_image(1), make_image(2)])
    shard.delete([make_id(2)])
    shard.insert([make_image(2)])
    assert shard.get(make_id(2)).row == 2


def test_a_malformed_id_belongs_to_no_image(shard):
    for identity in ("", "x", "../../etc/passwd", make_id(1)[:-1], make_id(1) + "00"):
        assert shard.get(identity) is None
        assert shard.vectors(identity) is None


def test_recent_images_come_newest_first_and_page_without_gaps(shard):
    shard.insert([make_image(number) for number in range(10)])
    shard.delete([make_id(8)])
    first = shard.recent(4)
    assert [image.row for image in first] == [9, 7, 6, 5]
    assert [image.row for image in shard.recent(3, first[-1].row)] == [4, 3, 2]
    assert [image.row for image in shard.recent(50, 2)] == [1, 0]
    assert shard.recent(5, 0) == []
    assert [image.row for image in shard.recent(1, 10**9)] == [9]


def test_an_empty_store_answers_completely_with_nothing(shard):
    answer = shard.search(make_query(make_image(1), candidates=5))
    assert (shard.hits(answer), answer.complete, answer.radius) == ([], True, 20)
    assert shard.recent(5) == []
    assert shard.insert([]) == []
    assert shard.delete([]) == []


def test_a_reopened_store_has_everything(tmp_path):
    path = tmp_path / "shard"
    with Shard.open(path, make_spec()) as shard:
        shard.insert([make_image(number) for number in range(10)])
    with Shard.open(path, make_spec()) as shard:
        assert shard.count() == 10
        shard.insert([make_image(11)])
    with Shard.open_existing(path) as shard:
        assert shard.get(make_id(11)).row == 10
        assert shard.spec.bundle_id == make_spec().bundle_id
        assert shard.stats().images == 11


def test_stats_tell_what_is_stored(shard):
    shard.insert([make_image(number) for number in range(10)])
    shard.delete([make_id(3)])
    stats = shard.stats()
    assert (stats.images, stats.rows_used, stats.format) == (9, 10, 2)
    assert (stats.segments, stats.dead_slots, stats.generation) == (1, 1, 0)
    assert 1 <= stats.largest_bucket <= 9
    assert stats.buckets <= 9
    assert 0 < stats.used_bytes < stats.file_bytes < stats.map_bytes


BAD_IMAGES = {
    "id too short": {"id": "abc"},
    "id in capitals": {"id": make_id(1).upper()},
    "code too long": {"code": np.zeros(4, np.uint8)},
    "code of another type": {"code": np.zeros(3, np.int64)},
    "code with bits after its end": {"code": np.array([0, 0, 1], np.uint8)},
    "feature too short": {"feature": np.zeros(7, np.float32)},
    "feature of another type": {"feature": np.zeros(8)},
    "feature of nan": {"feature": np.full(8, np.nan, np.float32)},
    "feature of infinity": {"feature": np.full(8, np.inf, np.float32)},
}


@pytest.mark.parametrize("change", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_malformed_image_is_refused_with_its_whole_batch(shard, change):
    with pytest.raises(ValueError, match="expected"):
        shard.insert([make_image(1), replace(make_image(2), **change)])
    assert shard.count() == 0


BAD_QUERIES = {
    "k": {"k": 0},
    "candidates": {"candidates": 0},
    "code": {"code": np.zeros(2, np.uint8)},
    "feature": {"feature": np.zeros(9, np.float32)},
    "nan": {"feature": np.full(8, np.nan, np.float32)},
    "a negative weight": {"code_weight": -0.1},
    "a weight of nan": {"code_weight": float("nan")},
    "a weight of infinity": {"code_weight": float("inf")},
    "a largest distance of nan": {"max_distance": float("nan")},
}


@pytest.mark.parametrize("change", BAD_QUERIES.values(), ids=BAD_QUERIES.keys())
def test_a_malformed_query_is_refused(shard, change):
    with pytest.raises(ValueError, match="expected"):
        shard.search(replace(make_query(make_image(1)), **change))


@pytest.mark.parametrize(("group", "groups"), [(1, 1), (-1, 2), (0, 0)])
def test_a_group_out_of_range_is_refused(shard, group, groups):
    with pytest.raises(ValueError, match="expected a group"):
        shard.search(make_query(make_image(1)), group=group, groups=groups)


@pytest.mark.parametrize(("limit", "row"), [(0, None), (1, -1)])
def test_a_page_out_of_range_is_refused(shard, limit, row):
    with pytest.raises(ValueError, match="expected a limit"):
        shard.recent(limit, row)


def test_closing_twice_is_fine_and_use_after_it_is_not(tmp_path):
    shard = Shard.open(tmp_path / "shard", make_spec())
    shard.close()
    shard.close()
    for use in (
        shard.count,
        shard.stats,
        shard.check,
        lambda: shard.get(make_id(1)),
        lambda: shard.recent(1),
        lambda: shard.insert([make_image(1)]),
        lambda: shard.delete([make_id(1)]),
        lambda: shard.search(make_query(make_image(1))),
        lambda: shard.search_many([make_query(make_image(1))]),
        lambda: shard.hits(Partial()),
        shard.labels,
        shard.compact,
    ):
        with pytest.raises(StoreClosed, match="open it again"):
            use()
