import tempfile

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_world import (
    assert_same_hits,
    brute_force,
    find,
    make_id,
    make_image,
    make_query,
    make_spec,
)

from store import Partial, Shard, hamming, merge
from store.kernels import _kept
from store.search import CHUNK_ROWS
from store.snapshot import Snapshot

BITS = [12, 20, 128]
COUNT = 300


@pytest.fixture(scope="module", params=BITS)
def world(request, tmp_path_factory):
    """A shard and what was put into it; three images share all their vectors."""
    bits = request.param
    images = [make_image(number, bits) for number in range(COUNT)]
    images += [make_image(COUNT + i, bits, feature=images[0].feature) for i in range(3)]
    with Shard.open(tmp_path_factory.mktemp("world") / "shard", make_spec(bits)) as shard:
        shard.insert(images)
        yield shard, images


queries = st.integers(0, 1000)
ks = st.one_of(st.integers(1, 40), st.just(10**9))
candidates = st.one_of(st.none(), st.integers(1, COUNT + 10))
weights = st.sampled_from([0.0, 0.3, 1.0, 5.0])


@given(number=queries, k=ks, weight=weights)
@settings(max_examples=30, deadline=None)
def test_asked_for_everything_the_answer_is_that_of_exhaustive_search(world, number, k, weight):
    shard, images = world
    query = make_query(make_image(number, shard.spec.bits), k=k, code_weight=weight)
    answer = shard.search(query)
    hits = shard.hits(answer)
    expected = brute_force(shard, images, query)
    if k < len(expected):
        # Where double and single precision disagree about a tie, either order is right.
        assert [h.distance for h in hits] == pytest.approx(
            [h.distance for h in expected[:k]], abs=2e-6
        )
    else:
        assert_same_hits(hits, expected)
    assert (answer.complete, answer.radius) == (True, shard.spec.bits)
    assert answer.candidates == answer.reranked == len(images)


@given(number=queries, k=ks, wanted=candidates, groups=st.integers(1, 5), weight=weights)
@settings(max_examples=100, deadline=None)
def test_merged_groups_are_one_search(world, number, k, wanted, groups, weight):
    shard, _ = world
    image = make_image(number, shard.spec.bits)
    query = make_query(image, k=k, candidates=wanted, code_weight=weight)
    whole = shard.search(query)
    parts = [shard.search(query, group=group, groups=groups) for group in range(groups)]
    merged = merge(parts, k)
    assert merged == whole


@given(number=queries, wanted=st.integers(1, COUNT + 10))
@settings(max_examples=100, deadline=None)
def test_everything_within_the_reported_radius_was_compared(world, number, wanted):
    shard, images = world
    query = make_query(make_image(number, shard.spec.bits), k=1000, candidates=wanted)
    answer = shard.search(query)
    # As many hits as were compared, so the hits are the images that were compared.
    query = make_query(make_image(number, shard.spec.bits), k=answer.reranked, candidates=wanted)
    answer = shard.search(query)
    assert len(answer) == answer.reranked
    compared = set(answer.names())
    distances = hamming(query.code, np.array([image.code for image in images]))
    near = {
        image.id for image, bits in zip(images, distances, strict=True) if bits <= answer.radius
    }
    assert near <= compared
    assert answer.complete == (len(compared) == len(images))


@given(number=queries, wanted=candidates, weight=weights)
@settings(max_examples=25, deadline=None)
def test_the_weight_of_codes_orders_the_images_compared_and_does_not_choose_them(
    world, number, wanted, weight
):
    shard, images = world
    image = make_image(number, shard.spec.bits)
    plain = shard.search(make_query(image, k=len(images), candidates=wanted))
    query = make_query(image, k=len(images), candidates=wanted, code_weight=weight)
    found = shard.search(query)
    assert set(found.names()) == set(plain.names())
    assert (found.radius, found.complete) == (plain.radius, plain.complete)
    compared = [image for image in images if image.id in set(found.names())]
    assert_same_hits(shard.hits(found), brute_force(shard, compared, query))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_by_a_heavy_weight_the_order_is_that_of_the_codes(tmp_path, metric):
    images = [make_image(number) for number in range(60)]
    with Shard.open(tmp_path / "shard", make_spec(metric=metric)) as shard:
        shard.insert(images)
        plain = find(shard, make_query(images[0], k=60))
        heavy = find(shard, make_query(images[0], k=60, code_weight=1000.0))
        assert [hit.hamming for hit in heavy] == sorted(hit.hamming for hit in plain)
        # An image that is searched with itself differs in no bit, whatever a bit weighs.
        assert heavy[0] == plain[0]


@given(number=queries, wanted=st.integers(1, COUNT), k=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_no_fewer_images_are_compared_than_asked_for_and_no_more(world, number, wanted, k):
    shard, images = world
    query = make_query(make_image(number, shard.spec.bits), k=k, candidates=wanted)
    assert shard.search(query).reranked == min(max(wanted, k), len(images))


def test_of_equally_distant_images_the_smaller_id_comes_first(world):
    shard, images = world
    twins = sorted(make_id(number) for number in (0, COUNT, COUNT + 1, COUNT + 2))
    for k in range(1, 5):
        assert shard.search(make_query(images[0], k=k)).names() == twins[:k]


def test_of_equally_near_codes_the_older_ones_are_compared():
    distances, rows = np.array([3, 1, 3, 3, 9], np.uint16), np.array([8, 7, 2, 5, 1])
    kept = [_kept(distances, rows, wanted).nonzero()[0].tolist() for wanted in range(1, 6)]
    assert kept == [[1], [1, 2], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4]]


def test_more_effort_never_reaches_less_far(world):
    shard, images = world
    for image in images[:10]:
        radii = [
            shard.search(make_query(image, k=1, candidates=wanted)).radius
            for wanted in (1, 10, 50, 200, COUNT, 1000)
        ]
        assert radii == sorted(radii)
        assert radii[-1] == shard.spec.bits


def test_a_search_of_more_than_one_chunk_is_exhaustive(tmp_path):
    images = [make_image(number) for number in range(CHUNK_ROWS + 10)]
    with Shard.open(tmp_path / "shard", make_spec()) as shard:
        shard.insert(images)
        query = make_query(images[7], k=len(images))
        assert_same_hits(find(shard, query), brute_force(shard, images, query))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_learned_centres_change_no_exhaustive_answer(seed, count):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 256, (count, 4), dtype=np.uint8)
    images = [make_image(number, 32) for number in range(30)]
    query = make_query(images[seed % 30], k=10)
    with tempfile.TemporaryDirectory() as folder:
        with Shard.open(f"{folder}/with", make_spec(32, centres=centres)) as shard:
            shard.insert(images)
            found = find(shard, query)
            assert shard.check().ok
        with Shard.open(f"{folder}/without", make_spec(32)) as shard:
            shard.insert(images)
            assert find(shard, query) == found


@given(chosen=st.lists(st.tuples(queries, st.integers(1, 40), candidates, weights), max_size=6))
@settings(max_examples=40, deadline=None)
def test_queries_at_once_have_the_answers_of_one_by_one(world, chosen):
    shard, _ = world
    asked = [
        make_query(make_image(number, shard.spec.bits), k=k, candidates=wanted, code_weight=weight)
        for number, k, wanted, weight in chosen
    ]
    assert shard.search_many(asked) == [shard.search(query) for query in asked]


def test_features_that_several_queries_compare_are_read_once(world, monkeypatch):
    shard, images = world
    read, parts = [], Snapshot.parts

    def remember(store, rows):
        read.extend(rows.tolist())
        return parts(store, rows)

    monkeypatch.setattr(Snapshot, "parts", remember)
    asked = [make_query(image, k=5, candidates=50) for image in images[:10]]
    needed = {row for query in asked for row in shard.candidates(query).rows.tolist()}
    shard.search_many(asked)
    assert read == sorted(needed)
    assert len(read) < 10 * 50


@given(
    number=queries,
    wanted=candidates,
    weight=weights,
    limit=st.floats(0, 2),
    groups=st.integers(1, 3),
)
@settings(max_examples=50, deadline=None)
def test_a_limit_on_the_distance_cuts_the_hits_off_and_changes_nothing_else(
    world, number, wanted, weight, limit, groups
):
    shard, _ = world
    options = {"k": 30, "candidates": wanted, "code_weight": weight}
    image = make_image(number, shard.spec.bits)
    free = shard.search(make_query(image, **options))
    query = make_query(image, **options, max_distance=limit)
    limited = shard.search(query)
    assert limited.names() == free.names()[: len(limited)]
    assert (limited.distances <= limit).all()
    assert (free.distances[len(limited) :] > limit).all()
    assert (limited.radius, limited.complete) == (free.radius, free.complete)
    parts = [shard.search(query, group=group, groups=groups) for group in range(groups)]
    assert merge(parts, 30) == limited


def test_a_partial_survives_a_trip_as_msgpack(world):
    shard, images = world
    answer = shard.search(make_query(images[3], k=3, candidates=20))
    assert Partial.from_dict(msgpack.unpackb(msgpack.packb(answer.to_dict()))) == answer
    assert set(answer.timings_ms) == {"plan", "gather", "rerank"}
    nothing = shard.search(make_query(images[3], max_distance=-1.0))
    assert Partial.from_dict(msgpack.unpackb(msgpack.packb(nothing.to_dict()))) == nothing
    assert (len(nothing), nothing.names(), shard.hits(nothing)) == (0, [], [])


def test_partials_are_equal_when_all_but_their_timings_is(world):
    shard, images = world
    query = make_query(images[3], k=3, candidates=20)
    assert shard.search(query) == shard.search(query)
    assert shard.search(query) != shard.search(make_query(images[3], k=2, candidates=20))
    assert shard.search(query) != shard.search(make_query(images[4], k=3, candidates=20))
    assert shard.search(query) != "an answer"


def test_merging_drops_repeated_ids_and_keeps_the_smallest_radius(world):
    shard, images = world
    one = shard.search(make_query(images[3], k=5, candidates=20))
    whole = shard.search(make_query(images[3], k=5))
    merged = merge([one, whole], 5)
    assert merged.names() == whole.names()
    assert merged.distances.tolist() == whole.distances.tolist()
    assert (merged.radius, merged.complete) == (one.radius, False)
    assert merged.reranked == one.reranked + whole.reranked


def test_an_answer_of_nobody_promises_nothing():
    nothing = merge([], 5)
    assert (len(nothing), nothing.radius, nothing.complete) == (0, -1, False)
    with pytest.raises(ValueError, match="expected k"):
        merge([], 0)
