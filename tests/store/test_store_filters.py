"""Searches among some of the images: by label, source and time."""

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

from store import Filter, Shard, hamming, merge
from store.filters import Sieve
from store.spec import MAX_LABEL_BYTES
from store.writing import MOST_LABELS

COUNT = 200
EPOCH = 1_700_000_000


def make(number, bits=20):
    """Every second one is even, few are rare; sources are in folders of ten."""
    labels = ("all", "even") if number % 2 == 0 else ("all",)
    labels += ("rare",) if number % 67 == 0 else ()
    return make_image(number, bits, labels=labels, source=f"/photos/{number // 10}/{number}.jpg")


@pytest.fixture(scope="module", params=[12, 20, 128])
def world(request, tmp_path_factory):
    images = [make(number, request.param) for number in range(COUNT)]
    folder = tmp_path_factory.mktemp("world") / "shard"
    with Shard.open(folder, make_spec(request.param)) as shard:
        shard.insert(images)
        yield shard, images


@pytest.fixture
def shard(tmp_path):
    with Shard.open(tmp_path / "shard", make_spec()) as opened:
        yield opened
        assert opened.check().problems == ()


def passes(image, wanted):
    return (
        (not wanted.labels or bool(set(wanted.labels) & set(image.labels)))
        and image.source.startswith(wanted.source)
        and (wanted.since is None or int(image.added_at) >= int(wanted.since))
        and (wanted.until is None or int(image.added_at) < int(wanted.until))
    )


labels = st.lists(st.sampled_from(["all", "even", "rare", "unknown"]), max_size=2).map(tuple)
moments = st.none() | st.floats(EPOCH - 5, EPOCH + COUNT + 5)
sources = st.sampled_from(["", "/photos/1", "/photos/11/", "/photos/3/33.jpg", "/else", "item-1"])
filters = st.builds(Filter, labels=labels, source=sources, since=moments, until=moments)
wanted_counts = st.none() | st.integers(1, COUNT + 10)


@given(number=st.integers(0, 500), wanted=filters)
@settings(max_examples=60, deadline=None)
def test_asked_for_everything_the_answer_is_that_of_exhaustive_search(world, number, wanted):
    shard, images = world
    query = make_query(make(number, shard.spec.bits), k=COUNT, filter=wanted)
    passing = [image for image in images if passes(image, wanted)]
    answer = shard.search(query)
    assert_same_hits(shard.hits(answer), brute_force(shard, passing, query))
    assert (answer.complete, answer.radius) == (True, shard.spec.bits)
    assert answer.candidates == answer.reranked == len(passing)


@given(number=st.integers(0, 500), wanted=filters, candidates=wanted_counts)
@settings(max_examples=100, deadline=None)
def test_as_many_as_were_asked_for_are_compared_and_the_radius_holds(
    world, number, wanted, candidates
):
    shard, images = world
    query = make_query(make(number, shard.spec.bits), k=1, candidates=candidates, filter=wanted)
    passing = {image.id: image for image in images if passes(image, wanted)}
    found = shard.candidates(query)
    ids = [make_id(row) for row in found.rows.tolist()]
    assert set(ids) <= passing.keys()
    assert len(ids) == min(candidates or COUNT, len(passing))
    for row, bits in zip(found.rows.tolist(), found.hamming.tolist(), strict=True):
        assert bits == hamming(query.code, images[row].code[None])[0]
    for identity, image in passing.items():
        near = hamming(query.code, image.code[None])[0] <= found.radius
        assert identity in ids or not near


@given(
    number=st.integers(0, 500),
    wanted=filters,
    candidates=wanted_counts,
    groups=st.integers(1, 5),
    k=st.integers(1, 30),
)
@settings(max_examples=80, deadline=None)
def test_merged_groups_are_one_search(world, number, wanted, candidates, groups, k):
    shard, _ = world
    query = make_query(make(number, shard.spec.bits), k=k, candidates=candidates, filter=wanted)
    parts = [shard.search(query, group=group, groups=groups) for group in range(groups)]
    assert merge(parts, k) == shard.search(query)


@given(number=st.integers(0, 500), candidates=wanted_counts)
@settings(max_examples=30, deadline=None)
def test_a_filter_that_lets_all_pass_changes_no_answer(world, number, candidates):
    shard, _ = world
    image = make(number, shard.spec.bits)
    plain = shard.search(make_query(image, candidates=candidates))
    for wanted in (Filter(), Filter(source="/photos/"), Filter(since=0), Filter(until=2.0**31)):
        query = make_query(image, candidates=candidates, filter=wanted)
        assert shard.search(query).names() == plain.names()


@given(
    rows=st.lists(st.integers(0, COUNT - 1), unique=True, max_size=60).map(np.array),
    wanted=filters,
)
@settings(max_examples=60, deadline=None)
def test_a_sieve_takes_rows_in_any_order(world, rows, wanted):
    shard, images = world
    rows = rows.astype(np.int64)
    found = shard._read(lambda store: Sieve.of(store, wanted).passing(rows))
    assert found.tolist() == [passes(images[row], wanted) for row in rows.tolist()]


def test_of_few_images_under_a_label_all_are_compared_however_far(world):
    shard, images = world
    rare = {image.id for image in images if "rare" in image.labels}
    for image in images[:20]:
        query = make_query(image, k=1, candidates=len(rare), filter=Filter(labels=("rare",)))
        answer = shard.search(query)
        assert (answer.reranked, answer.complete) == (len(rare), True)


def test_a_label_that_no_image_has_finds_nothing_and_says_that_this_is_all(world):
    shard, images = world
    for name in ("unknown", "a" * MAX_LABEL_BYTES, "even "):
        answer = shard.search(make_query(images[0], filter=Filter(labels=(name,))))
        assert (len(answer), answer.complete, answer.reranked) == (0, True, 0)


@pytest.mark.parametrize("name", ["", "x" * (MAX_LABEL_BYTES + 1), "x" * 5000, "caf\udce9"])
def test_a_label_that_no_image_can_have_is_refused(world, name):
    shard, images = world
    with pytest.raises(ValueError, match="expected labels"):
        shard.search(make_query(images[0], filter=Filter(labels=("rare", name))))


@pytest.mark.parametrize("name", ["since", "until"])
def test_a_time_that_is_no_number_is_refused(world, name):
    shard, images = world
    with pytest.raises(ValueError, match="expected a time"):
        shard.search(make_query(images[0], filter=Filter(**{name: float("nan")})))


def test_times_count_in_whole_seconds(shard):
    shard.insert([make_image(number) for number in range(10)])

    def found(**times):
        query = make_query(make_image(0), k=10, filter=Filter(**times))
        return sorted(round(hit.added_at - EPOCH) for hit in find(shard, query))

    assert found(since=EPOCH + 7) == [7, 8, 9]
    assert found(since=EPOCH + 7.9) == [7, 8, 9]
    assert found(until=EPOCH + 2) == [0, 1]
    assert found(until=EPOCH + 2.9) == [0, 1]
    assert found(since=EPOCH + 4, until=EPOCH + 5) == [4]
    assert found(since=EPOCH + 5, until=EPOCH + 5) == []
    assert found(since=-1.0, until=0) == []
    assert len(found(since=-1e18, until=1e18)) == 10
    assert len(found(since=-np.inf, until=np.inf)) == 10


def test_a_source_is_looked_for_at_its_beginning_and_only_among_sources(shard):
    shard.insert([make_image(1, source="/photos/1.jpg", origin="/scans/1", labels=("/drawings",))])
    shard.insert([make_image(1, source="http://example.org/1", origin="other")])
    shard.insert([make_image(2, source="/photos/caf\udce9.jpg")])

    def found(source):
        query = make_query(make_image(0), filter=Filter(source=source))
        return {hit.id for hit in find(shard, query)}

    assert found("/photos/") == {make_id(1), make_id(2)}
    assert found("http://example.org/") == {make_id(1)}
    assert found("/photos/caf\udce9") == {make_id(2)}
    assert found("photos") == found("/scans") == found("/drawings") == found("JPEG") == set()


def test_the_labels_of_an_image_are_kept_each_once_in_their_order(shard):
    shard.insert([make_image(1, labels=("b", "a", "b", "grün"))])
    assert shard.get(make_id(1)).labels == ("b", "a", "grün")
    assert shard.labels() == {"a": 1, "b": 1, "grün": 1}
    (hit,) = find(shard, make_query(make_image(1), filter=Filter(labels=("grün",))))
    assert hit.labels == ("b", "a", "grün")


def test_another_origin_adds_labels_and_the_same_one_does_not(shard):
    shard.insert([make_image(1, labels=("a",))])
    shard.insert([make_image(1, labels=("b",))])
    assert shard.labels() == {"a": 1}
    shard.insert([make_image(1, origin="other", labels=("b", "a", "c"))])
    assert shard.get(make_id(1)).labels == ("a", "b", "c")
    assert shard.labels() == {"a": 1, "b": 1, "c": 1}


def test_the_list_of_labels_is_bounded(shard):
    names = tuple(f"label-{number}" for number in range(MOST_LABELS + 5))
    shard.insert([make_image(1, labels=names), make_image(2, labels=names[:-7])])
    assert shard.get(make_id(1)).labels == names[:MOST_LABELS]
    shard.insert([make_image(2, origin="other", labels=names[::-1])])
    last = names[::-1][: MOST_LABELS - len(names) + 7]
    assert shard.get(make_id(2)).labels == (*names[:-7], *last)
    assert sum(shard.labels().values()) == 2 * MOST_LABELS


@pytest.mark.parametrize("name", ["", "x" * (MAX_LABEL_BYTES + 1), "ü" * 251, "caf\udce9"])
def test_a_label_of_the_wrong_form_is_refused_with_its_whole_batch(shard, name):
    with pytest.raises(ValueError, match="expected labels"):
        shard.insert([make_image(1), make_image(2, labels=("fine", name))])
    assert shard.count() == 0
    assert shard.labels() == {}


def test_the_longest_label_fits(shard):
    name = "ü" * (MAX_LABEL_BYTES // 2)
    shard.insert([make_image(1, labels=(name,))])
    assert shard.labels() == {name: 1}


def test_labels_go_with_the_last_image_that_has_them(shard):
    shard.insert([make_image(1, labels=("a", "b")), make_image(2, labels=("b",))])
    shard.delete([make_id(1)])
    assert shard.labels() == {"b": 1}
    shard.delete([make_id(2)])
    assert shard.labels() == {}
    query = make_query(make_image(1), filter=Filter(labels=("a", "b")))
    assert len(shard.search(query)) == 0
