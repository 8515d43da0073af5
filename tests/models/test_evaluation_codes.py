"""Figures about bits and buckets, against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.evaluation.codes import bit_figures, bucket_figures
from models.evaluation.itq import learn_itq

SEEDS = st.integers(0, 2**32 - 1)


def packed(bits: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(bits, axis=1)


@settings(deadline=None)
@given(SEEDS, st.integers(1, 20), st.floats(0, 1))
def test_ones_entropy_and_correlation_are_those_of_the_definitions(
    seed: int, count: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    bits = rng.random((30, count)) < share
    figures = bit_figures(packed(bits), bits=count)
    ones = bits.mean(0)
    assert figures.ones == pytest.approx(ones)
    entropy = [-sum(p * np.log2(p) for p in (one, 1 - one) if p > 0) for one in ones]
    assert figures.entropy == pytest.approx(entropy, abs=1e-9)
    pairs = [
        abs(np.corrcoef(bits[:, i], bits[:, j])[0, 1])
        if 0 < ones[i] < 1 and 0 < ones[j] < 1
        else 0.0
        for i in range(count)
        for j in range(i)
    ]
    assert figures.mean_correlation == pytest.approx(np.mean(pairs) if pairs else 0, abs=1e-5)
    assert figures.largest_correlation == pytest.approx(max(pairs, default=0), abs=1e-5)


@settings(deadline=None)
@given(SEEDS, st.integers(2, 20))
def test_effective_bits_follow_from_the_distances_of_all_pairs(seed: int, count: int) -> None:
    bits = np.random.default_rng(seed).random((25, count)) < 0.4
    distances = (bits[:, None] != bits).mean(2)
    p, variance = distances.mean(), distances.var()
    expected = p * (1 - p) / variance
    assert bit_figures(packed(bits), bits=count).effective_bits == pytest.approx(expected, 1e-3)


def test_independent_bits_all_count_and_copies_count_once() -> None:
    bits = np.random.default_rng(0).random((20_000, 16)) < 0.5
    assert bit_figures(packed(bits), bits=16).effective_bits == pytest.approx(16, rel=0.05)
    doubled = np.repeat(bits[:, :8], 2, axis=1)
    figures = bit_figures(packed(doubled), bits=16)
    assert figures.effective_bits == pytest.approx(8, rel=0.05)
    assert figures.largest_correlation == pytest.approx(1)


def test_codes_that_are_all_alike_have_no_effective_bit() -> None:
    figures = bit_figures(np.full((9, 2), 0b10101010, np.uint8), bits=16)
    assert figures.effective_bits == 0
    assert figures.entropy.tolist() == [0] * 16
    assert figures.mean_correlation == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
def test_buckets_are_described_as_a_count_describes_them(keys: list[int]) -> None:
    sizes = sorted(keys.count(key) for key in set(keys))
    figures = bucket_figures(np.array(keys, np.uint32))
    assert (figures.used, figures.largest) == (len(sizes), sizes[-1])
    assert figures.mean_own == pytest.approx(np.mean([keys.count(key) for key in keys]))
    assert figures.top_percent_share == pytest.approx(sizes[-1] / len(keys))
    pairs = [abs(one - other) for one in sizes for other in sizes]
    assert figures.gini == pytest.approx(np.mean(pairs) / (2 * np.mean(sizes)))


def test_itq_bits_are_balanced_and_keep_neighbours() -> None:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((4, 12)) * 3
    labels = rng.integers(0, 4, 400)
    rows = (middles[labels] + rng.standard_normal((400, 12))).astype(np.float32)
    itq = learn_itq(rows, bits=8, seed=0)
    codes = itq.codes(rows)
    assert bit_figures(codes, bits=8).ones.min() > 0.2
    distances = np.bitwise_count(codes[:, None] ^ codes).sum(2)
    same = labels[:, None] == labels
    assert distances[same].mean() < distances[~same].mean() / 2


def test_itq_has_no_more_bits_than_dimensions() -> None:
    with pytest.raises(ValueError, match="at most 3 bits"):
        learn_itq(np.ones((5, 3), np.float32), bits=4, seed=0)
