import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from store_world import rounded

from store.kernels import dots
from store.values import cosine_distances, l2_distances, quantise, query_values, restore

floats = st.floats(-(2.0**40), 2.0**40, width=32)
features = arrays(np.float32, (3, 7), elements=floats)


def products(query, values):
    found = query.room(len(values))
    query.multiply(values, np.arange(len(values)), found)
    return found


def cosines_to(query, values, squares):
    return cosine_distances(query, products(query, values), squares)


def l2_to(query, values, squares, scales):
    return l2_distances(query, products(query, values), squares, scales)


@given(features)
def test_rounding_is_at_most_half_a_step_of_the_largest_value(given_features):
    values, scales, squares = quantise(given_features)
    error = np.abs(restore(values, scales).astype(np.float64) - given_features)
    # A denormal scale has few digits of its own.
    assert (error <= 0.5001 * scales[:, None] + 127 * 1.5e-45).all()
    assert (squares == (values.astype(int) ** 2).sum(axis=1)).all()


@given(arrays(np.float32, 7, elements=floats))
def test_a_query_is_rounded_to_a_64516th_of_its_largest_value(feature):
    wide = feature.astype(np.float64)
    assert (np.abs(rounded(feature) - wide) <= np.abs(wide).max() / 64_516 * (1 + 1e-9)).all()
    assert query_values(feature).square == pytest.approx(rounded(feature) @ rounded(feature))


@given(features, arrays(np.float32, 7, elements=floats))
def test_distances_are_in_range_and_never_nan(stored, asked):
    values, scales, squares = quantise(stored)
    query = query_values(asked)
    cosine = cosines_to(query, values, squares)
    assert ((cosine >= 0) & (cosine <= 2)).all()
    assert (l2_to(query, values, squares, scales) >= 0).all()


@given(st.integers(0, 2**32 - 1))
def test_distances_agree_with_their_definition(seed):
    rng = np.random.default_rng(seed)
    stored = rng.normal(size=(20, 33)).astype(np.float32)
    asked = rng.normal(size=33).astype(np.float32)
    values, scales, squares = quantise(stored)
    exact = values * scales[:, None].astype(np.float64)
    query = query_values(asked)
    seen = rounded(asked)
    l2 = l2_to(query, values, squares, scales)
    assert l2 == pytest.approx(np.linalg.norm(exact - seen, axis=1), rel=2e-7)
    cosine = cosines_to(query, values, squares)
    assert cosine == pytest.approx(cosines(exact, seen), abs=2e-7)
    # What the rounding of the query may add: as a length, and as an angle.
    off = 33**0.5 * float(np.abs(asked).max()) / 64_516
    angle = off / float(np.linalg.norm(asked))
    assert l2 == pytest.approx(np.linalg.norm(exact - asked, axis=1), abs=off + 1e-6)
    assert cosine == pytest.approx(cosines(exact, asked), abs=angle + 1e-6)


def cosines(rows, query):
    return 1 - rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)


@given(st.integers(0, 2**32 - 1))
def test_products_of_bytes_are_exact(seed):
    rng = np.random.default_rng(seed)
    one, values = (rng.integers(-127, 128, (n, 1283), np.int8) for n in (1, 9))
    assert dots(one, values).tolist() == (values.astype(int) @ one[0].astype(int)).tolist()


def test_the_largest_product_is_exact_too():
    largest = np.full((1, 1 << 17), 127, np.int8)
    assert dots(largest, largest).tolist() == [127 * 127 << 17]
    assert dots(-largest, largest).tolist() == [-127 * 127 << 17]
    assert quantise(largest.astype(np.float32))[2].tolist() == [127 * 127 << 17]


@pytest.mark.parametrize("size", [3, 1280])
def test_a_stored_feature_is_at_distance_zero_from_itself(size):
    rng = np.random.default_rng(2)
    values, scales, squares = quantise(rng.normal(size=(20, size)).astype(np.float32))
    for row, feature in enumerate(restore(values, scales)):
        query = query_values(feature)
        assert cosines_to(query, values, squares)[row] == pytest.approx(0, abs=1e-12)
        assert l2_to(query, values, squares, scales)[row] <= 1e-7 * size**0.5


def test_a_feature_of_zeros_has_no_direction():
    values, _, squares = quantise(np.array([[0, 0], [1, 2]], np.float32))
    nothing, something = (query_values(each(2, np.float32)) for each in (np.zeros, np.ones))
    assert cosines_to(nothing, values, squares).tolist() == [0, 1]
    assert cosines_to(something, values, squares)[0] == 1


@pytest.mark.parametrize("scale", [1e-38, 1e14])
def test_the_smallest_and_the_largest_floats_have_distances(scale):
    feature = np.array([[1, -1, 0.5, 0]], np.float32) * np.float32(scale)
    values, scales, squares = quantise(feature)
    query = query_values(feature[0])
    assert cosines_to(query, values, squares)[0] < 1e-4
    assert l2_to(query, values, squares, scales)[0] <= 4 * scale


def test_a_row_has_the_same_distance_alone_and_in_any_batch():
    rng = np.random.default_rng(3)
    values, scales, squares = quantise(rng.normal(size=(100, 1283)).astype(np.float32))
    query = query_values(rng.normal(size=1283).astype(np.float32))
    cosine = cosines_to(query, values, squares)
    l2 = l2_to(query, values, squares, scales)
    for start in range(0, 100, 7):
        part = slice(start, start + 7)
        assert (cosines_to(query, values[part], squares[part]) == cosine[part]).all()
        found = l2_to(query, values[part], squares[part], scales[part])
        assert (found == l2[part]).all()


@given(arrays(np.float32, (3, 7), elements=st.floats(-(2.0**49), 2.0**49, width=32)))
def test_values_are_the_nearest_whole_numbers_of_steps(given_features):
    values, scales, _ = quantise(given_features)
    steps = given_features / np.where(scales > 0, scales, np.float32(1))[:, None]
    assert (values == np.clip(np.rint(steps), -127, 127)).all()


def test_half_a_step_is_rounded_to_the_even_number():
    feature = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5]], np.float32)
    assert quantise(feature)[0].tolist() == [[127, 0, 2, 2, 0, -2, -126]]


def test_a_scale_whose_bits_were_flipped_is_farther_than_all_others():
    query = query_values(np.ones(4, np.float32))
    values = np.full((2, 4), 100, np.int8)
    squares = np.full(2, 40_000, np.uint32)
    scales = np.array([0.01, 3e38], np.float32)
    near, far = l2_distances(query, products(query, values), squares, scales)
    assert np.isfinite(near)
    assert far == np.inf
