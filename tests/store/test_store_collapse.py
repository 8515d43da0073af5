import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import Features, near_duplicates
from store.values import quantise, restore


def stored(features):
    return Features(np.ones(len(features), np.bool_), *quantise(features))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@given(seed=st.integers(0, 2**32 - 1), limit=st.floats(0, 1), count=st.integers(1, 70))
def test_each_hit_is_near_the_one_that_stands_for_it_and_those_are_apart(
    metric, seed, limit, count
):
    given_features = stored(np.random.default_rng(seed).random((count, 3)).astype(np.float32))
    features = restore(given_features.values, given_features.scales)
    leaders = near_duplicates(given_features, metric, limit)
    assert (leaders <= np.arange(count)).all()
    assert (leaders[leaders] == leaders).all()
    apart = distances(features, metric)
    assert (apart[np.arange(count), leaders] <= limit + 1e-6).all()
    alone = np.unique(leaders)
    among = apart[np.ix_(alone, alone)]
    assert (among[~np.eye(len(alone), dtype=bool)] > limit - 1e-6).all()
    assert (leaders == by_definition(apart, limit)).all() or on_the_line(apart, limit)


def test_copies_are_found_at_no_distance_at_all_and_do_not_depend_on_what_else_is_there():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(100, 1283)).astype(np.float32)
    twice = np.concatenate([features, features])
    for metric in ("cosine", "l2"):
        leaders = near_duplicates(stored(twice), metric, 0.0)
        assert leaders.tolist() == [*range(100), *range(100)]


def test_features_of_zeros_are_duplicates_of_each_other_and_of_nothing_else():
    features = np.array([[0, 0], [1, 0], [0, 0]], np.float32)
    assert near_duplicates(stored(features), "cosine", 0.5).tolist() == [0, 1, 0]
    assert near_duplicates(stored(features), "l2", 0.5).tolist() == [0, 1, 0]


def test_no_hits_have_no_duplicates():
    nothing = Features(*(column[:0] for column in stored(np.ones((1, 4), np.float32))))
    assert near_duplicates(nothing, "l2", 0.5).tolist() == []


def by_definition(apart, limit):
    leaders = []
    for place, row in enumerate(apart):
        alone = (first for first in range(place) if leaders[first] == first)
        leaders.append(next((first for first in alone if row[first] <= limit), place))
    return np.array(leaders)


def on_the_line(apart, limit):
    return (np.abs(apart - limit) < 1e-6).any()


def distances(features, metric):
    wide = features.astype(np.float64)
    if metric == "l2":
        return np.linalg.norm(wide[:, None] - wide, axis=2)
    lengths = np.linalg.norm(wide, axis=1)
    return 1 - wide @ wide.T / lengths[:, None] / lengths
