"""Retraining: long codes are filed by other centres, and no answer changes meanwhile."""

import random
from dataclasses import replace

import numpy as np
import pytest
from store_upkeep import BITS, centres
from store_world import (
    assert_same_hits,
    brute_force,
    find,
    make_id,
    make_image,
    make_query,
    make_spec,
)
from upkeep_drill import keeper, kill_again_and_again

from ops.drill.small import small_segments
from store import NothingToRetrain, Shard, StoreDamaged, merge, retraining

QUERY = make_query(make_image(3, BITS), k=1000)


@pytest.fixture
def shard(tmp_path):
    with Shard.open(tmp_path / "shard", make_spec(BITS)) as shard:
        shard.insert([make_image(number, BITS) for number in range(100)])
        yield shard


def steps(shard, size=7):
    """Do a retraining step by step."""
    while shard.retrain_step(size):
        yield shard.retraining()


def test_answers_are_the_same_before_during_and_after(shard):
    whole = find(shard, QUERY)
    nearest = replace(QUERY, k=5, candidates=100)
    near = find(shard, nearest)
    shard.begin_retraining(centres(0))
    for _ in steps(shard):
        assert shard.check().problems == ()
        assert find(shard, QUERY) == whole
        assert find(shard, nearest) == near
    stats = shard.stats()
    assert (stats.generation, stats.centres) == (1, 8)
    assert stats.buckets <= 8
    assert find(shard, QUERY) == whole
    assert find(shard, nearest) == near


def test_the_buckets_are_those_of_a_store_that_began_with_the_centres(shard, tmp_path):
    shard.retrain(centres(1))
    spec = make_spec(BITS, centres=centres(1))
    with Shard.open(tmp_path / "other", spec) as other:
        other.insert([make_image(number, BITS) for number in range(100)])
        query = replace(QUERY, k=3, candidates=4)
        one, two = shard.search(query), other.search(query)
        assert one == two
        assert np.array_equal(shard.bucket_sizes(), other.bucket_sizes())


def test_groups_before_and_after_the_switch_have_every_image_between_them(shard):
    first = shard.search(QUERY, group=0, groups=2)
    shard.retrain(centres(0))
    merged = merge([first, shard.search(QUERY, group=1, groups=2)], QUERY.k)
    assert merged.complete
    assert len(merged) == 100


def test_progress_is_told_and_goes_up_to_all_rows(shard):
    shard.delete([make_id(number) for number in range(30, 60)])
    told = []
    shard.retrain(centres(0), step=9, progress=told.append)
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert told[-1].done == told[-1].rows == 100
    assert told[0].centres == 8
    assert shard.retraining() is None
    assert shard.stats().images == 70


def test_what_is_inserted_and_deleted_meanwhile_is_filed_in_both_generations(shard):
    chance, present = random.Random(2), set(range(100))
    shard.begin_retraining(centres(0))
    for _ in steps(shard):
        added = chance.sample(range(300), 6)
        removed = chance.sample(sorted(present), 6)
        shard.insert([make_image(number, BITS) for number in added])
        shard.delete([make_id(number) for number in removed])
        present = (present | set(added)) - set(removed)
        assert shard.check().problems == ()
    stored = [make_image(number, BITS) for number in present]
    assert_same_hits(find(shard, QUERY), brute_force(shard, stored, QUERY))


def test_an_image_deleted_between_reading_and_filing_is_not_filed(shard):
    shard.begin_retraining(centres(0))
    batch = shard._read(lambda store: retraining.next_batch(store, shard._keys, 10))
    shard.delete([make_id(number) for number in range(3, 6)])
    filing = batch.key.file(batch.codes)
    shard._write(lambda store: retraining.file_batch(store, batch, filing))
    assert shard.check().problems == ()
    # The same batch once more, as from another process that is at it too, changes nothing.
    shard._write(lambda store: retraining.file_batch(store, batch, filing))
    assert shard.retraining().done == 10
    shard.retrain()
    assert shard.check().problems == ()
    assert shard.count() == 97


def test_an_interrupted_retraining_goes_on_where_it_was(tmp_path, shard):
    shard.begin_retraining(centres(0))
    for _ in range(3):
        shard.retrain_step(10)
    shard.close()
    with Shard.open_existing(tmp_path / "shard") as shard:
        assert shard.retraining().done == 30
        shard.begin_retraining(centres(0))
        assert shard.retraining().done == 30
        shard.retrain()
        assert shard.stats().centres == 8
        assert shard.check().problems == ()


def test_other_centres_replace_those_that_are_under_way(shard):
    shard.begin_retraining(centres(0))
    for _ in range(3):
        shard.retrain_step(10)
    shard.begin_retraining(centres(2))
    assert shard.retraining().done == 0
    for _ in steps(shard):
        assert shard.check().problems == ()
    stats = shard.stats()
    assert (stats.generation, stats.centres) == (2, 10)
    assert left_over(shard) == 0


def test_nothing_of_the_generation_before_is_left(shard):
    shard.retrain(centres(0))
    shard.retrain(centres(1))
    assert left_over(shard) == 0
    assert not shard.retrain_step()


def left_over(shard):
    """Entries of buckets beyond one for each image, and centres beyond those in use."""

    def work(store):
        entries = store.txn.stat(store.tables.buckets)["entries"]
        names = [bytes(name) for name, _ in store.txn.cursor(store.tables.meta)]
        return entries - store.count() + sum(b"centres of" in name for name in names) - 1

    return shard._read(work)


def test_an_empty_store_can_be_retrained(tmp_path):
    with Shard.open(tmp_path, make_spec(BITS)) as shard:
        shard.retrain(centres(0))
        assert shard.stats().centres == 8
        shard.insert([make_image(1, BITS)])
        assert len(find(shard, QUERY)) == 1
        assert shard.check().problems == ()


def test_short_codes_and_wrong_centres_are_refused(tmp_path, shard):
    with (
        Shard.open(tmp_path / "short", make_spec(20)) as short,
        pytest.raises(NothingToRetrain, match="their own bucket key"),
    ):
        short.retrain(np.zeros((3, 3), np.uint8))
    for wrong in (np.zeros((3, 4), np.uint8), np.zeros((1, 5)), np.zeros((0, 5), np.uint8)):
        with pytest.raises(ValueError, match="expected centres of shape"):
            shard.retrain(wrong)
    with pytest.raises(ValueError, match="all different"):
        shard.retrain(np.zeros((2, 5), np.uint8))
    with pytest.raises(ValueError, match="at least 1"):
        shard.retrain_step(0)
    assert shard.retraining() is None


def test_a_generation_that_lacks_an_image_never_becomes_the_current_one(shard):
    shard.begin_retraining(centres(0))

    def pretend(store):
        retraining.write_number(store.txn, store.tables, "refiled", 100)

    shard._write(pretend)
    with pytest.raises(StoreDamaged, match="0 of 100"):
        shard.retrain()
    assert len(find(shard, QUERY)) == 100


def test_another_process_that_searches_meanwhile_always_finds_everything(tmp_path):
    """It changes and retrains the store; whatever its state, all that is stored is found."""
    with (
        small_segments(16),
        Shard.open(tmp_path, make_spec(BITS)) as shard,
        keeper(tmp_path, 4, "retrain"),
    ):
        kept = make_image(10**6, BITS)
        shard.insert([kept])
        seen = set()
        for _ in range(300):
            assert kept.id in {hit.id for hit in find(shard, make_query(kept, k=1, candidates=1))}
            answer = shard.search(QUERY)
            assert answer.complete
            seen.add(shard.stats().generation)
        assert len(seen) > 1


@pytest.mark.parametrize(
    ("images", "wanted"),
    [(0, 64), (50_000, 64), (250_000, 256), (10**6, 1024), (2_500_000, 2048), (10**8, 8192)],
)
def test_the_number_of_centres_follows_the_number_of_images(images, wanted):
    assert retraining.centres_wanted(images) == wanted


def test_retraining_is_due_where_centres_are_far_too_few_or_fixed(shard, monkeypatch):
    assert shard.retraining_due() == 0
    monkeypatch.setattr(retraining, "_FIXED_UP_TO", 50)
    assert shard.retraining_due() == 64
    shard.begin_retraining(centres(0))
    assert shard.retraining_due() == 0
    shard.retrain()
    assert shard.retraining_due() == 64
    shard.retrain(np.arange(17 * 5, dtype=np.uint8).reshape(17, 5))
    assert shard.retraining_due() == 0


def test_short_codes_are_never_due(tmp_path, monkeypatch):
    monkeypatch.setattr(retraining, "_FIXED_UP_TO", 0)
    with Shard.open(tmp_path, make_spec(20)) as shard:
        shard.insert([make_image(1)])
        assert shard.retraining_due() == 0


@pytest.mark.parametrize("at_once", [10, 10**6])
def test_a_sample_holds_each_image_at_most_once(shard, monkeypatch, at_once):
    monkeypatch.setattr(retraining, "_SAMPLED_AT_ONCE", at_once)
    codes = {make_image(number, BITS).code.tobytes() for number in range(100)}
    drawn = shard.sample_ids(40, seed=1)
    assert len(set(drawn)) == 40
    assert drawn == shard.sample_ids(40, seed=1) != shard.sample_ids(40, seed=2)
    assert set(shard.sample_ids(1000, seed=1)) == {make_id(number) for number in range(100)}
    some = shard.sample_codes(40, seed=1)
    assert some.shape == (40, 5)
    assert {code.tobytes() for code in some} <= codes
    assert {code.tobytes() for code in shard.sample_codes(100, seed=3)} == codes


def test_a_sample_of_an_empty_store_is_empty(tmp_path):
    with Shard.open(tmp_path, make_spec(BITS)) as shard:
        assert shard.sample_codes(5, seed=0).shape == (0, 5)
        assert shard.sample_ids(5, seed=0) == []


def test_a_process_killed_at_random_moments_leaves_exactly_what_it_committed(tmp_path):
    generations = set()
    # On a busy machine few retrainings come to their end before they are killed.
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        kill_again_and_again(
            folder,
            "retrain",
            times=8,
            seed=7,
            look=lambda shard: generations.add(shard.stats().generation),
        )
        if len(generations) > 2:
            break
    assert len(generations) > 2
