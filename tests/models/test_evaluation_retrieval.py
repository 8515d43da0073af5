"""The rankings that a search could make, against loops over the images."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tqdm import tqdm

from models.evaluation import ranking
from models.evaluation.measures import average_precision, mean_average_precision
from models.evaluation.retrieval import TOP, Embedded, Rules, rank_by_code, rank_by_feature
from models.evaluation.ties import expected_precision

BITS, DIMS = 10, 5


@pytest.fixture(autouse=True, scope="module")
def small_and_quiet() -> Iterator[None]:
    """More than one block of queries, and no thread that watches progress bars."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "QUERIES_AT_ONCE", 3)
        patch.setattr(tqdm, "monitor_interval", 0)
        yield


def images(rng: np.random.Generator, count: int) -> Embedded:
    bits = rng.random((count, BITS)) < 0.5
    features = rng.standard_normal((count, DIMS)).astype(np.float32)
    return Embedded(features, np.packbits(bits, axis=1), rng.integers(0, 3, count))


def naive_hits(
    query: int, queries: Embedded, database: Embedded, rules: Rules
) -> tuple[list[int], list[int]]:
    """Rows by Hamming distance, and the candidates re-ranked, one distance at a time."""
    differing = [int(np.unpackbits(queries.codes[query] ^ code).sum()) for code in database.codes]
    by_code = sorted(range(len(database)), key=lambda row: (differing[row], row))
    mine = queries.features[query].astype(float)

    def distance(row: int) -> float:
        other = database.features[row].astype(float)
        if rules.metric == "l2":
            plain = float(np.linalg.norm(mine - other))
        else:
            plain = 1 - mine @ other / np.linalg.norm(mine) / np.linalg.norm(other)
        return plain + rules.code_weight * differing[row] / rules.bits

    candidates = by_code[: rules.candidates]
    return by_code[: rules.k], sorted(candidates, key=distance)[: rules.k]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["cosine", "l2"]), st.sampled_from([0.0, 0.7]))
def test_codes_and_candidates_are_ranked_as_a_loop_ranks_them(
    seed: int, metric: str, code_weight: float
) -> None:
    rng = np.random.default_rng(seed)
    queries, database = images(rng, 7), images(rng, 25)
    rules = Rules(k=8, candidates=12, bits=BITS, metric=metric, code_weight=code_weight)
    codes, groups = rank_by_code(queries, database, rules)
    _, reranked = rank_by_feature(queries, database, rules)
    for query in range(len(queries)):
        by_code, by_both = naive_hits(query, queries, database, rules)
        assert codes.top[query].tolist() == by_code
        assert reranked.top[query].tolist() == by_both
        same = database.labels == queries.labels[query]
        assert codes.relevant[query].tolist() == same[by_code].tolist()
        assert reranked.relevant[query].tolist() == same[by_both].tolist()
    assert groups.sizes.sum(1).tolist() == [25] * 7


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_candidates_of_everything_are_an_exhaustive_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, database = images(rng, 4), images(rng, 20)
    for candidates in (20, 500):
        rules = Rules(k=15, candidates=candidates, bits=BITS, metric="cosine")
        everything, reranked = rank_by_feature(queries, database, rules)
        assert (everything.relevant == reranked.relevant).all()
        assert (everything.top == reranked.top).all()
        assert everything.top.shape == (4, TOP)


def test_the_mean_over_random_orders_of_the_database_is_the_expected_score() -> None:
    rng = np.random.default_rng(3)
    queries, database = images(rng, 6), images(rng, 60)
    rules = Rules(k=10, candidates=10, bits=BITS, metric="cosine")
    total: NDArray[np.int64] = np.bincount(database.labels)[queries.labels]
    expected, scores = {}, []
    for _ in range(300):
        shuffled = database.take(rng.permutation(60))
        ranked, groups = rank_by_code(queries, shuffled, rules)
        scores.append(average_precision(ranked.relevant, total))
        expected = {
            of_all: expected_precision(groups, 10, of_all=of_all) for of_all in (True, False)
        }
    error = np.std(scores, axis=0) / np.sqrt(len(scores))
    assert (np.abs(np.mean(scores, axis=0) - expected[True]) < 4 * error + 1e-9).all()
    assert (expected[False] >= expected[True] - 1e-12).all()


def test_codes_that_follow_the_class_score_1() -> None:
    labels = np.arange(12) % 3
    codes = np.packbits(np.eye(3, BITS, dtype=bool)[labels], axis=1)
    database = Embedded(np.ones((12, DIMS), np.float32), codes, labels)
    rules = Rules(k=4, candidates=4, bits=BITS, metric="cosine")
    ranked, _ = rank_by_code(database, database, rules)
    assert mean_average_precision(ranked.relevant, np.full(12, 4)) == 1.0
