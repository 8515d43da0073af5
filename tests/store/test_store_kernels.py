"""The compiled loops give what NumPy gives, and touch nothing outside of their arrays."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import kernels
from store.kernels import (
    Pieces,
    gather,
    nearest,
    nearest_buckets,
    nearest_centres,
    nearest_of,
    products,
)
from store.spec import MAX_DIMS

compiled = pytest.mark.skipif(not kernels.COMPILED, reason="the machine has no C compiler")


@st.composite
def searches(draw):
    """Runs of codes, some of them equal and some dead, a query, and how many are wanted."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    words, rows, runs = draw(st.integers(1, 5)), 0, []
    for _ in range(draw(st.integers(0, 3))):
        count = draw(st.integers(1, 300))
        # Few different codes: ties are what can go wrong.
        codes = rng.integers(0, 2**64, (words, 8), np.uint64)[:, rng.integers(0, 8, count)]
        kind = draw(st.sampled_from([np.uint32, np.int64]))
        dead = rng.random(count) < 0.2 if draw(st.booleans()) else None
        ends = np.unique(rng.integers(0, count + 1, 2 * draw(st.integers(0, 9))))
        ends = ends[: len(ends) // 2 * 2].reshape(-1, 2).T.astype(np.int64)
        numbers = rng.permutation(count).astype(kind) + kind(rows)
        rows += count
        starts, stops = (np.ascontiguousarray(each) for each in ends)
        runs.append(Pieces(np.ascontiguousarray(codes), numbers, dead, starts, stops))
    code = rng.integers(0, 2**64, words, np.uint64)
    return runs, code, draw(st.one_of(st.none(), st.integers(1, 400)))


@pytest.mark.parametrize("is_compiled", [pytest.param(True, marks=compiled), False])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), furthest=st.integers(0, 20))
def test_the_nearest_buckets_hold_what_is_wanted(is_compiled, seed, count, furthest):
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, furthest + 1, count).astype(np.uint16)
    counts, bounds = rng.integers(1, 9, count), rng.integers(-3, 30, count).astype(np.int16)
    wanted = int(rng.integers(1, counts.sum() + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "COMPILED", is_compiled)
        chosen, bound = nearest_buckets(distances, counts, bounds, wanted)
    # Ring by ring, in the order of their keys, until there are enough.
    order = np.argsort(distances, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    assert np.flatnonzero(chosen).tolist() == sorted(order[before < wanted].tolist())
    assert bound == min(bounds[~chosen].tolist(), default=32_767)


@pytest.mark.parametrize("is_compiled", [pytest.param(True, marks=compiled), False])
@given(seed=st.integers(0, 2**32 - 1), words=st.integers(1, 5), centres=st.integers(1, 90))
def test_a_code_is_filed_under_the_first_of_its_nearest_centres(is_compiled, seed, words, centres):
    rng = np.random.default_rng(seed)
    # Few different ones: several centres are as near.
    of_centres = rng.integers(0, 4, (words, centres), np.uint64)
    codes = rng.integers(0, 4, (21, words), np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "COMPILED", is_compiled)
        places, distances = nearest_centres(codes, of_centres)
    every = np.bitwise_count(codes[:, :, None] ^ of_centres).sum(axis=1, dtype=int)
    assert places.tolist() == every.argmin(axis=1).tolist()
    assert distances.tolist() == every.min(axis=1).tolist()


def test_the_loops_are_those_that_belong_to_their_python():
    source = Path(kernels.__file__).with_name("kernels.c").read_text(encoding="utf-8")
    assert f"#define VERSION {kernels._VERSION}\n" in source


@compiled
def test_a_bucket_further_away_than_codes_are_long_is_refused():
    far, ones = np.array([5000], np.uint16), np.ones(1, np.int64)
    with pytest.raises(ValueError, match="do not fit"):
        nearest_buckets(far, ones, ones.astype(np.int16), 1)


@compiled
@given(searches())
def test_the_nearest_codes_are_those_that_numpy_finds(search):
    runs, code, wanted = search
    found, expected = (
        nearest(runs, code, wanted),
        nearest_of(gather(runs, len(code)), code, wanted),
    )
    assert found.rows.tolist() == expected.rows.tolist()
    assert found.hamming.tolist() == expected.hamming.tolist()
    assert (found.seen, found.missed) == (expected.seen, expected.missed)
    assert (found.rows.dtype, found.hamming.dtype) == (np.int64, np.uint16)


@given(searches())
def test_without_a_compiler_numpy_finds_them(search):
    runs, code, wanted = search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "COMPILED", False)
        found = nearest(runs, code, wanted)
    lines = gather(runs, len(code))
    distances = [
        sum(int(word).bit_count() for word in each) for each in (lines.words ^ code).tolist()
    ]
    order = sorted(zip(distances, lines.rows.tolist(), strict=True))[:wanted]
    assert sorted(zip(found.hamming.tolist(), found.rows.tolist(), strict=True)) == order


@pytest.mark.parametrize("is_compiled", [pytest.param(True, marks=compiled), False])
@given(seed=st.integers(0, 2**32 - 1), dims=st.sampled_from([1, 63, 256, 257, 1283]))
def test_products_are_exact(is_compiled, seed, dims):
    rng = np.random.default_rng(seed)
    values, slots = rng.integers(-127, 128, (9, dims), np.int8), rng.integers(0, 9, 20)
    coarse, fine = (rng.integers(-127, 128, dims, np.int16) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "COMPILED", is_compiled)
        both, alone = np.empty((20, 2), np.int32), np.empty((20, 1), np.int32)
        products(values, slots, coarse, fine, both)
        products(values, slots, coarse, None, alone)
    for found, query in zip([*both.T, *alone.T], [coarse, fine, coarse], strict=True):
        assert found.tolist() == (values[slots].astype(int) @ query.astype(int)).tolist()


@compiled
def test_the_largest_products_fit():
    largest = np.full((1, MAX_DIMS), 127, np.int8)
    query = largest[0].astype(np.int16)
    found = np.empty((1, 2), np.int32)
    products(largest, np.array([0]), query, -query, found)
    assert found.tolist() == [[127 * 127 * MAX_DIMS, -127 * 127 * MAX_DIMS]]
    longer = np.zeros((1, 2**31 // 127**2 + 1), np.int8)
    with pytest.raises(ValueError, match="do not fit"):
        products(
            longer, np.array([0]), longer[0].astype(np.int16), None, np.empty((1, 1), np.int32)
        )


@compiled
@pytest.mark.parametrize("slot", [-1, 9, 2**62])
def test_a_slot_that_is_not_there_is_refused(slot):
    values, query = np.zeros((9, 16), np.int8), np.zeros(16, np.int16)
    with pytest.raises(ValueError, match="do not fit"):
        products(values, np.array([0, slot]), query, None, np.empty((2, 1), np.int32))


@compiled
@pytest.mark.parametrize("piece", [(-1, 5), (5, 4), (0, 11), (2**62, 2**63 - 1)])
def test_a_piece_that_is_not_there_is_refused(piece):
    starts, ends = (np.array([each]) for each in piece)
    words, rows = np.zeros((2, 10), np.uint64), np.zeros(10, np.uint32)
    run = Pieces(words, rows, None, starts, ends)
    distances, counts = np.empty(20, np.uint16), np.zeros((4, 129), np.int64)
    with pytest.raises(ValueError, match="do not fit"):
        kernels._kernels.count(words, starts, ends, words[:, 0].copy(), None, distances, counts)
    with pytest.raises(ValueError, match="do not fit"):
        kernels._kernels.pick(rows, 4, starts, ends, distances, 3, *np.zeros((2, 5), np.uint64))
    assert len(run.starts) == 1


@compiled
def test_what_has_no_room_is_not_written():
    rows, ends = np.arange(10, dtype=np.uint32), np.array([10])
    distances, (nearer, level) = np.zeros(10, np.uint16), np.full((2, 4), 7, np.uint64)
    found = kernels._kernels.pick(
        rows, 4, np.array([0]), ends, distances, 3, nearer[:3], level[:3]
    )
    assert found == (3, 0)
    assert (nearer[3], level[0]) == (7, 7)
