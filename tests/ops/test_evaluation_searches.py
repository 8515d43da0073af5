"""The searches of an evaluation go through the real store, and agree with the arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from models.bundle import load_bundle
from models.evaluation.retrieval import Embedded, Rules, rank_by_feature
from ops.evaluation import searches
from ops.evaluation.searches import search_figures
from store.values import quantise, restore
from tests.ops.coloured import tiny_bundle
from workers.searching import candidates_for

IMAGES, QUERIES = 700, 6


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


def images(rng: np.random.Generator, count: int) -> Embedded:
    """Features that codes of 12 bits say something about."""
    features = rng.standard_normal((count, 6)).astype(np.float32)
    raw = features @ np.random.default_rng(5).standard_normal((6, 12))
    return Embedded(features, np.packbits(raw > 0, axis=1), rng.integers(0, 3, count))


@pytest.mark.parametrize("code_weight", [0.0, 0.5])
def test_a_search_of_the_store_ranks_as_the_arrays_do(tmp_path: Path, code_weight: float) -> None:
    rng = np.random.default_rng(1)
    queries, database = images(rng, QUERIES), images(rng, IMAGES)
    bundle = load_bundle(tiny_bundle(tmp_path / "b", name="b", bits=12, code_weight=code_weight))
    found = search_figures(bundle, queries, database)
    assert [each.effort for each in found] == [1, 10]
    assert found[0].candidates == candidates_for(1, 100) == 500
    assert found[-1].recall == {1: 1.0, 10: 1.0, 100: 1.0}
    # With features as the store has them, both find the same images, so the classes agree.
    values, scales, _ = quantise(database.features)
    stored = Embedded(restore(values, scales), database.codes, database.labels)
    rules = Rules(k=100, candidates=500, bits=12, metric="cosine", code_weight=code_weight)
    _, reranked = rank_by_feature(queries, stored, rules)
    for depth in (1, 10, 100):
        share = reranked.relevant[:, :depth].mean()
        assert found[0].precision[depth] == pytest.approx(share, abs=0.5 / depth / QUERIES)
    assert 0 < found[0].p50_ms <= found[0].p95_ms


def test_recall_falls_with_fewer_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        searches, "candidates_for", lambda effort, k: None if effort == 10 else max(k, 60 * effort)
    )
    rng = np.random.default_rng(2)
    queries, database = images(rng, 20), images(rng, IMAGES)
    found = search_figures(
        load_bundle(tiny_bundle(tmp_path / "b", name="b", bits=12)), queries, database
    )
    assert [each.effort for each in found] == [*range(1, 10), 10]
    recalls = [each.recall[100] for each in found]
    assert recalls == sorted(recalls)
    assert recalls[0] < 1
    assert all(each.buckets >= 1 for each in found)
