"""Rankings and their measures, against loops written from the definitions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.evaluation.measures import (
    average_precision,
    mean_average_precision,
    overlap,
    precision_curve,
)
from models.evaluation.ranking import rank_codes, rank_features
from models.evaluation.ties import Groups, count_groups, expected_precision

SEEDS = st.integers(0, 2**32 - 1)


def naive_precision(relevant: list[bool], total: int | None) -> float:
    """Average precision by hand: no array, no cumulative sum."""
    precisions = []
    for place, hit in enumerate(relevant):
        if hit:
            seen = relevant[: place + 1]
            precisions.append(sum(seen) / len(seen))
    possible = len(precisions) if total is None else min(total, len(relevant))
    return sum(precisions) / possible if possible else 0.0


@settings(deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 20))
def test_codes_are_ranked_by_distance_then_by_place(seed: int, width: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = (rng.integers(0, 4, (n, width), np.uint8) for n in (70, 20))
    ranked = rank_codes(queries, database, k)
    for query, found in zip(queries, ranked, strict=True):
        distances = np.unpackbits(query ^ database, axis=1).sum(1)
        assert found.tolist() == np.argsort(distances, kind="stable")[:k].tolist()


@settings(deadline=None)
@given(SEEDS)
def test_features_are_ranked_by_angle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = (rng.standard_normal((n, 5)).astype(np.float32) for n in (3, 30))
    ranked = rank_features(queries, database * rng.uniform(1, 9, (30, 1)).astype(np.float32), 30)
    cosines = queries @ database.T / np.linalg.norm(database, axis=1)
    ordered = np.take_along_axis(cosines, ranked, axis=1)
    assert (np.diff(ordered, axis=1) <= 1e-5).all()
    assert (np.sort(ranked, axis=1) == np.arange(30)).all()


@settings(deadline=None)
@given(SEEDS)
def test_features_are_ranked_by_euclidean_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = (rng.standard_normal((n, 5)).astype(np.float32) for n in (3, 30))
    ranked = rank_features(queries, database, 30, metric="l2")
    true = np.linalg.norm(queries[:, None].astype(float) - database, axis=2)
    assert (np.diff(np.take_along_axis(true, ranked, axis=1), axis=1) >= -1e-4).all()


def test_an_image_is_nearest_to_itself_by_either_metric() -> None:
    rows = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    for metric in ("cosine", "l2"):
        assert rank_features(rows, rows, 1, metric=metric)[:, 0].tolist() == list(range(9))


def test_an_unknown_metric_is_refused() -> None:
    rows = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="expected the metric"):
        rank_features(rows, rows, 1, metric="angle")


@pytest.mark.parametrize("k", [0, 21])
def test_k_must_fit_the_database(k: int) -> None:
    rows = np.zeros((20, 1), np.uint8)
    with pytest.raises(ValueError, match="expected k from 1 to 20"):
        rank_codes(rows, rows, k)


def test_average_precision_is_that_of_a_worked_example() -> None:
    relevant = np.array([[True, False, True, False], [False, False, False, False]])
    expected = (1 / 1 + 2 / 3) / 2 / 2
    assert mean_average_precision(relevant) == pytest.approx(expected)
    missed = np.array([3, 5])
    assert mean_average_precision(relevant, missed) == pytest.approx((1 / 1 + 2 / 3) / 3 / 2)
    # More relevant images than ranks: a full list of hits would be perfect.
    assert mean_average_precision(np.ones((1, 4), bool), np.array([9])) == 1.0


@settings(deadline=None)
@given(SEEDS, st.integers(1, 12), st.floats(0, 1))
def test_average_precision_is_what_a_loop_over_the_ranks_gives(
    seed: int, k: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    relevant = rng.random((5, k)) < share
    total = relevant.sum(1) + rng.integers(0, 9, 5)
    of_found = [naive_precision(row.tolist(), None) for row in relevant]
    of_all = [
        naive_precision(row.tolist(), int(count))
        for row, count in zip(relevant, total, strict=True)
    ]
    assert average_precision(relevant) == pytest.approx(of_found)
    assert average_precision(relevant, total) == pytest.approx(of_all)


@settings(deadline=None)
@given(SEEDS)
def test_moving_a_hit_up_never_lowers_average_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevant = rng.random((1, 12)) < 0.4
    better = relevant.copy()
    place = int(rng.integers(1, 12))
    better[0, place - 1 : place + 1] = np.sort(better[0, place - 1 : place + 1])[::-1]
    assert mean_average_precision(better) >= mean_average_precision(relevant)


@settings(deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_the_precision_curve_is_the_mean_share_of_relevant_hits(seed: int, k: int) -> None:
    relevant = np.random.default_rng(seed).random((4, k)) < 0.5
    expected = [float(np.mean([row[:i].mean() for row in relevant])) for i in range(1, k + 1)]
    assert precision_curve(relevant).tolist() == pytest.approx(expected)


def test_overlap_is_the_share_of_the_true_hits_that_were_found() -> None:
    truth = np.array([4, 7, 1, 9])
    assert overlap(np.array([9, 4, 100, -1]), truth) == 0.5
    assert overlap(truth[::-1], truth) == 1.0


def orders(groups: list[tuple[int, int]]) -> list[list[bool]]:
    """All rankings that differ only in the order of equal distances, each equally often."""
    parts = [
        list(itertools.permutations([True] * relevant + [False] * (size - relevant)))
        for size, relevant in groups
    ]
    return [list(itertools.chain(*chosen)) for chosen in itertools.product(*parts)]


def as_arrays(groups: list[tuple[int, int]]) -> Groups:
    sizes, relevant = np.array(groups).T[:, None]
    return Groups(sizes, relevant)


GROUPS = st.lists(
    st.integers(0, 4).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))),
    min_size=1,
    max_size=3,
).filter(lambda groups: sum(size for size, _ in groups) > 0)


@settings(deadline=None)
@given(GROUPS, st.data())
def test_expected_precision_is_the_mean_over_all_orders_of_equals(
    groups: list[tuple[int, int]], data: st.DataObject
) -> None:
    size, total = (sum(numbers) for numbers in zip(*groups, strict=True))
    k = data.draw(st.integers(1, size))
    cut = [ranking[:k] for ranking in orders(groups)]
    of_found = np.mean([naive_precision(ranking, None) for ranking in cut])
    of_all = np.mean([naive_precision(ranking, total) for ranking in cut])
    found = as_arrays(groups)
    assert expected_precision(found, k, of_all=False)[0] == pytest.approx(of_found)
    assert expected_precision(found, k, of_all=True)[0] == pytest.approx(of_all)


@settings(deadline=None)
@given(GROUPS, st.booleans())
def test_groups_in_order_are_one_certain_ranking(
    groups: list[tuple[int, int]], relevant_first: bool
) -> None:
    size = sum(size for size, _ in groups)
    ranking = [
        hit
        for size, relevant in groups
        for hit in sorted([True] * relevant + [False] * (size - relevant), reverse=relevant_first)
    ]
    found = as_arrays(groups).ordered(relevant_first=relevant_first)
    for k in range(1, size + 1):
        expected = naive_precision(ranking[:k], None)
        assert expected_precision(found, k, of_all=False)[0] == pytest.approx(expected)


@settings(deadline=None)
@given(SEEDS)
def test_the_order_of_equals_moves_precision_between_its_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(0, 16, (40, 1), np.uint8), rng.integers(0, 3, 40)
    distances = np.bitwise_count(codes[:4] ^ codes.T).astype(np.uint16)
    same = labels[:4, None] == labels
    groups = count_groups(distances, same, bits=8)
    assert groups.sizes.sum(1).tolist() == [40] * 4
    assert groups.relevant.sum(1).tolist() == same.sum(1).tolist()
    total: NDArray[np.int64] = same.sum(1)
    relevant = np.take_along_axis(same, rank_codes(codes[:4], codes, 15), axis=1)
    stable = average_precision(relevant, total)
    first, last = (
        expected_precision(groups.ordered(relevant_first=order), 15, of_all=True)
        for order in (True, False)
    )
    for value in (stable, expected_precision(groups, 15, of_all=True)):
        assert (last <= value + 1e-12).all()
        assert (value <= first + 1e-12).all()
