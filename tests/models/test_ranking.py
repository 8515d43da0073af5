import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.ranking import mean_average_precision, rank_codes, rank_features


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 20))
def test_codes_are_ranked_by_distance_then_by_place(seed: int, width: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = (rng.integers(0, 4, (n, width), np.uint8) for n in (70, 20))
    ranked = rank_codes(queries, database, k)
    for query, found in zip(queries, ranked, strict=True):
        distances = np.unpackbits(query ^ database, axis=1).sum(1)
        assert found.tolist() == np.argsort(distances, kind="stable")[:k].tolist()


@given(st.integers(0, 2**32 - 1))
def test_features_are_ranked_by_angle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = (rng.standard_normal((n, 5)).astype(np.float32) for n in (3, 30))
    ranked = rank_features(queries, database * rng.uniform(1, 9, (30, 1)).astype(np.float32), 30)
    cosines = queries @ database.T / np.linalg.norm(database, axis=1)
    ordered = np.take_along_axis(cosines, ranked, axis=1)
    assert (np.diff(ordered, axis=1) <= 1e-5).all()
    assert (np.sort(ranked, axis=1) == np.arange(30)).all()


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


@given(st.integers(0, 2**32 - 1))
def test_moving_a_hit_up_never_lowers_average_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevant = rng.random((1, 12)) < 0.4
    better = relevant.copy()
    place = int(rng.integers(1, 12))
    better[0, place - 1 : place + 1] = np.sort(better[0, place - 1 : place + 1])[::-1]
    assert mean_average_precision(better) >= mean_average_precision(relevant)
