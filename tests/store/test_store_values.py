import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from store.values import cosine_distances, l2_distances, lengths, quantise, restore

floats = st.floats(-(2.0**40), 2.0**40, width=32)
features = arrays(np.float32, (3, 7), elements=floats)


@given(features)
def test_rounding_is_at_most_half_a_step_of_the_largest_value(given_features):
    values, scales = quantise(given_features)
    error = np.abs(restore(values, scales).astype(np.float64) - given_features)
    # A denormal scale has few digits of its own.
    assert (error <= 0.5001 * scales[:, None] + 127 * 1.5e-45).all()


@given(features, arrays(np.float32, 7, elements=floats))
def test_distances_are_in_range_and_never_nan(stored, query):
    values, scales = quantise(stored)
    cosine = cosine_distances(query, values, lengths(values))
    assert ((cosine >= 0) & (cosine <= 2)).all()
    assert (l2_distances(query, values, scales) >= 0).all()


@given(st.integers(0, 2**32 - 1))
def test_distances_agree_with_their_definition(seed):
    rng = np.random.default_rng(seed)
    stored, query = rng.normal(size=(20, 33)).astype(np.float32), rng.normal(size=33)
    values, scales = quantise(stored)
    exact = restore(values, scales).astype(np.float64)
    l2 = np.linalg.norm(exact - query, axis=1)
    cosine = 1 - exact @ query / np.linalg.norm(exact, axis=1) / np.linalg.norm(query)
    query = query.astype(np.float32)
    assert l2_distances(query, values, scales) == pytest.approx(l2, rel=1e-5)
    assert cosine_distances(query, values, lengths(values)) == pytest.approx(cosine, abs=1e-6)


def test_a_stored_feature_is_at_distance_zero_from_itself():
    values, scales = quantise(np.random.default_rng(2).normal(size=(1, 1280)).astype(np.float32))
    query = restore(values, scales)[0]
    assert cosine_distances(query, values, lengths(values)) == pytest.approx(0, abs=1e-6)
    assert l2_distances(query, values, scales) == pytest.approx(0, abs=1e-6)


def test_a_feature_of_zeros_has_no_direction():
    values, _ = quantise(np.array([[0, 0], [1, 2]], np.float32))
    norms = lengths(values)
    assert cosine_distances(np.zeros(2, np.float32), values, norms).tolist() == [0, 1]
    assert cosine_distances(np.ones(2, np.float32), values, norms)[0] == 1


def test_a_row_has_the_same_distance_alone_and_in_any_batch():
    rng = np.random.default_rng(3)
    values, scales = quantise(rng.normal(size=(100, 1283)).astype(np.float32))
    norms, query = lengths(values), rng.normal(size=1283).astype(np.float32)
    cosine, l2 = cosine_distances(query, values, norms), l2_distances(query, values, scales)
    for start in range(0, 100, 7):
        part = slice(start, start + 7)
        assert (cosine_distances(query, values[part], norms[part]) == cosine[part]).all()
        assert (l2_distances(query, values[part], scales[part]) == l2[part]).all()
