"""The codes in memory are those of the buckets, whatever was written and by whom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_world import make_id, make_image, make_query, make_spec

import store.filing
import store.mirror
from store import Shard
from store.mirror import Mirror

numbers = st.lists(st.integers(0, 60), min_size=1, max_size=25)
steps = st.lists(st.tuples(st.sampled_from(["insert", "delete"]), numbers), max_size=12)


def assert_mirrored(shard, mirror, keys=None):
    def compare(store):
        occupied = store.directory().keys
        wanted = occupied if keys is None else np.intersect1d(occupied, keys)
        found = mirror.bucket_codes(store, wanted)
        _, stored = store.stored_bucket_codes(wanted)
        assert lines(found) == lines(stored)

    shard._read(compare)


def lines(codes):
    words = [word.tobytes() for word in codes.words]
    return sorted(zip(codes.rows.tolist(), words, strict=True))


def apply(shard, bits, step):
    what, chosen = step
    if what == "insert":
        shard.insert([make_image(number, bits) for number in chosen])
    else:
        shard.delete([make_id(number) for number in chosen])


@pytest.mark.parametrize("bits", [12, 128, 300])
@given(history=steps, keys=st.lists(st.integers(0, 300), max_size=40), fed=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_mirror_follows_inserts_and_deletes(tmp_path_factory, bits, history, keys, fed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.mirror, "FED_ROWS", fed)
        patch.setattr(store.filing, "LOGGED_DELETIONS", 3)
        with Shard.open(tmp_path_factory.mktemp("mirror"), make_spec(bits)) as shard:
            mirror = Mirror(shard._keys, shard._read)
            for step in history:
                apply(shard, bits, step)
                assert_mirrored(shard, mirror)
                assert_mirrored(shard, mirror, keys)


def test_a_snapshot_that_is_older_than_the_mirror_reads_the_buckets(tmp_path):
    with Shard.open(tmp_path, make_spec()) as shard:
        shard.insert([make_image(number) for number in range(10)])
        mirror = Mirror(shard._keys, shard._read)

        def look(older):
            shard.insert([make_image(10)])
            assert_mirrored(shard, mirror)
            assert mirror.bucket_codes(older, older.directory().keys) is None

        other = shard._snapshot
        shard._env.read(lambda txn: look(other(txn)))


def test_a_store_that_is_too_large_for_a_mirror_has_the_same_answers(tmp_path):
    images = [make_image(number, 128) for number in range(80)]
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert(images)
        queries = [make_query(image, candidates=7) for image in images[:20]]
        mirrored = [shard.search(query) for query in queries]
        shard._cache.mirror._state = None
        shard._cache.mirror._most_bytes = 0
        assert [shard.search(query) for query in queries] == mirrored
        assert shard._cache.mirror._state is None


def test_the_mirror_of_a_large_store_is_made_beside_the_searches(tmp_path, monkeypatch):
    monkeypatch.setattr(store.mirror, "_SMALL", 10)
    images = [make_image(number, 128) for number in range(80)]
    queries = [make_query(image, candidates=7) for image in images[:20]]
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert(images)
        mirror = shard._cache.mirror
        before = [shard.search(query) for query in queries[:3]]
        assert mirror._making is None  # not worth while for so few searches
        before += [shard.search(query) for query in queries[3:]]
        mirror._making.join()
        assert mirror._state is not None
        shard.insert([make_image(80, 128)])
        shard.delete([make_id(80)])
        assert [shard.search(query) for query in queries] == before
        assert_mirrored(shard, mirror)


def test_a_shard_can_be_closed_while_its_mirror_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(store.mirror, "_SMALL", 10)
    monkeypatch.setattr(store.mirror, "_WORTH_ASKING", 1)
    with Shard.open(tmp_path, make_spec()) as shard:
        shard.insert([make_image(number) for number in range(50)])
        shard.search(make_query(make_image(1)))
        making = shard._cache.mirror._making
    making.join()


@pytest.mark.parametrize("small", [10, 1000])
def test_the_codes_are_in_memory_after_a_warm_up(tmp_path, monkeypatch, small):
    monkeypatch.setattr(store.mirror, "_SMALL", small)
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert([make_image(number, 128) for number in range(50)])
        shard.warm_up()
        mirror = shard._cache.mirror
        assert mirror._state is not None
        assert_mirrored(shard, mirror)


def test_a_store_too_large_for_a_mirror_is_warm_at_once(tmp_path):
    with Shard.open(tmp_path, make_spec(128)) as shard:
        shard.insert([make_image(1, 128)])
        shard._cache.mirror._most_bytes = 0
        shard.warm_up()
        assert shard._cache.mirror._state is None
