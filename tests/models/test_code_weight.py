"""The code weight that held-out images find most with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.evaluation.measures import mean_average_precision
from models.evaluation.retrieval import Embedded, Rules, rank_by_feature
from models.training import code_weight
from models.training.code_weight import GRID, Seen, choose_code_weight

BITS, DIMS, CLASSES = 16, 8, 4


def images(rng: np.random.Generator, *, code: float, feature: float, count: int = 240) -> Embedded:
    """Images whose codes and features follow the class as much as is asked for, 0 to 1."""
    of_classes = np.random.default_rng(5)
    labels = rng.integers(0, CLASSES, count)
    bits = of_classes.random((CLASSES, BITS))[labels] < 0.5
    bits ^= rng.random((count, BITS)) < (1 - code) / 2
    centres = of_classes.standard_normal((CLASSES, DIMS))[labels]
    features = feature * centres + (1 - feature) * rng.standard_normal((count, DIMS))
    return Embedded(features.astype(np.float32), np.packbits(bits, axis=1), labels)


def seen(rng: np.random.Generator, **follow: float) -> Seen:
    known = images(rng, **follow)
    rows: NDArray[np.int64] = np.arange(len(known))
    return Seen(known, rows[40:], known, rows[:40])


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_codes_count_where_they_know_the_class_better(metric: str) -> None:
    rng = np.random.default_rng(0)
    codes = choose_code_weight(seen(rng, code=0.8, feature=0.1), bits=BITS, metric=metric, seed=0)
    assert codes.weight >= codes.scores[3][0]
    assert max(score for _, score in codes.scores) > codes.scores[0][1] + 0.1
    features = seen(rng, code=0.0, feature=0.9)
    assert choose_code_weight(features, bits=BITS, metric=metric, seed=0).weight == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["cosine", "l2"]))
def test_the_scores_are_those_of_searches_with_each_weight(seed: int, metric: str) -> None:
    look = seen(np.random.default_rng(seed), code=0.4, feature=0.4)
    choice = choose_code_weight(look, bits=BITS, metric=metric, seed=seed)
    queries, stored = look.others.take(look.held_out), look.known.take(look.learned)
    alike = np.bincount(stored.labels, minlength=CLASSES)[queries.labels]
    for weight, score in choice.scores:
        rules = Rules(k=200, candidates=200, bits=BITS, metric=metric, code_weight=weight)
        _, ranked = rank_by_feature(queries, stored, rules)
        assert score == pytest.approx(mean_average_precision(ranked.relevant, alike))
    best = max(score for _, score in choice.scores)
    assert choice.weight <= next(weight for weight, score in choice.scores if score == best)


def test_weights_are_in_the_unit_of_the_features() -> None:
    look = seen(np.random.default_rng(1), code=0.5, feature=0.2)
    longer = Embedded(1000 * look.known.features, look.known.codes, look.known.labels)
    large = Seen(longer, look.learned, longer, look.held_out)
    short, long = (
        choose_code_weight(each, bits=BITS, metric="l2", seed=0) for each in (look, large)
    )
    assert long.weight == pytest.approx(1000 * short.weight, rel=0.02)
    cosine = choose_code_weight(large, bits=BITS, metric="cosine", seed=0)
    assert tuple(weight for weight, _ in cosine.scores) == GRID


def test_few_images_are_looked_at_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_weight, "_MOST_QUERIES", 7)
    monkeypatch.setattr(code_weight, "_MOST_STORED", 50)
    look = seen(np.random.default_rng(2), code=0.5, feature=0.5)
    first, again = (choose_code_weight(look, bits=BITS, metric="cosine", seed=3) for _ in range(2))
    assert (first.queries, first.stored) == (7, 50)
    assert first == again


def test_features_that_are_all_alike_do_no_harm() -> None:
    known = images(np.random.default_rng(3), code=0.9, feature=0.5)
    same = Embedded(np.ones_like(known.features), known.codes, known.labels)
    rows: NDArray[np.int64] = np.arange(len(same))
    choice = choose_code_weight(
        Seen(same, rows[9:], same, rows[:9]), bits=BITS, metric="l2", seed=0
    )
    assert choice.weight > 0
