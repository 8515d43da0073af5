import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import near_duplicates


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@given(seed=st.integers(0, 2**32 - 1), limit=st.floats(0, 1))
def test_each_hit_is_near_the_one_that_stands_for_it_and_those_are_apart(metric, seed, limit):
    features = np.random.default_rng(seed).random((12, 3)).astype(np.float32)
    leaders = near_duplicates(features, metric, limit)
    assert (leaders <= np.arange(12)).all()
    assert (leaders[leaders] == leaders).all()
    for place, leader in enumerate(leaders):
        assert distance(features[place], features[leader], metric) <= limit + 1e-6
    alone = np.unique(leaders)
    for i, first in enumerate(alone):
        for second in alone[i + 1 :]:
            assert distance(features[first], features[second], metric) > limit - 1e-6


def test_features_of_zeros_are_duplicates_of_each_other_and_of_nothing_else():
    features = np.array([[0, 0], [1, 0], [0, 0]], np.float32)
    assert near_duplicates(features, "cosine", 0.5).tolist() == [0, 1, 0]


def distance(one, other, metric):
    if metric == "l2":
        return float(np.linalg.norm(one.astype(np.float64) - other))
    one, other = one.astype(np.float64), other.astype(np.float64)
    return 1 - float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))
