"""Merging what probes reply, and telling the truth about what is missing."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.catalogue import ensure_bundle
from store import Partial
from tests.workers.conftest import PATIENCE_S
from tests.workers.pictures import folder_of, jpeg
from workers.client import Client
from workers.errors import Failed, InvalidRequest, SettingsError, Unavailable
from workers.probing import merged_answer
from workers.records import Problem, SearchState
from workers.searching import MAX_EFFORT, MIN_EFFORT, candidates_for
from workers.settings import Settings

PROBLEM = Problem("store", "The shard is damaged.", "Restore it.")


def partial(*distances: float) -> Partial:
    names = b"".join(
        bytes.fromhex(f"{distance:.3f}".replace(".", "").rjust(32, "0")) for distance in distances
    )
    return Partial(
        ids=np.frombuffer(names, np.uint8).reshape(-1, 16),
        distances=np.array(distances, np.float32),
        hamming=np.zeros(len(distances), np.uint16),
        radius=3,
        candidates=len(distances),
        reranked=len(distances),
    )


def test_more_effort_never_compares_fewer_images() -> None:
    for k in (1, 24, 1_000, 10_000):
        asked = [candidates_for(effort, k) for effort in range(MIN_EFFORT, MAX_EFFORT)]
        numbers = [number for number in asked if number is not None]
        assert numbers == sorted(numbers)
        assert len(numbers) == len(asked)
        assert min(numbers) >= 4 * k
        assert candidates_for(MAX_EFFORT, k) is None


def test_a_group_that_fails_is_counted_and_named() -> None:
    replies = [partial(0.1), partial(0.2), PROBLEM, partial(0.3)]
    answer = merged_answer(replies, k=10, groups=2)
    assert (answer.asked, answer.answered, answer.shards_answered) == (4, 3, 1)
    assert answer.problem == PROBLEM
    assert answer.merged.distances.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_an_answer_of_all_groups_has_no_problem() -> None:
    answer = merged_answer([partial(0.2), partial(0.1)], k=1, groups=1)
    assert answer.problem is None
    assert answer.shards_answered == 2
    assert answer.merged.distances.tolist() == pytest.approx([0.1])


def test_without_any_answer_the_search_fails_with_the_first_problem() -> None:
    with pytest.raises(Failed, match=r"damaged.*Restore"):
        merged_answer([PROBLEM, PROBLEM], k=1, groups=2)


def test_hits_are_ordered_with_the_code_weight_of_the_bundle(
    base_settings: Settings, tmp_path: Path
) -> None:
    settings = replace(base_settings, data_dir=tmp_path / "data")
    bundle = ensure_bundle(settings.bundle, cache_dir=settings.cache_dir)
    with Client.open(settings, trusted=True) as client:
        job = client.ingest_folder(folder_of(tmp_path / "photos", range(16)))
        assert client.wait_job(job.id, PATIENCE_S).counts.indexed == 16
        search = client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(0))), k=16, effort=10)
        hits = client.wait_search(search.ticket, PATIENCE_S).hits
    of_features = [hit.distance - bundle.code_weight * hit.hamming / bundle.bits for hit in hits]
    assert bundle.code_weight > 0
    assert of_features[0] == pytest.approx(0, abs=1e-3)
    assert min(of_features[1:]) > 0
    assert max(of_features) < 1
    assert hits[-1].distance > max(of_features)


def test_a_damaged_shard_makes_the_result_partial_and_says_why(
    base_settings: Settings, tmp_path: Path
) -> None:
    settings = replace(base_settings, data_dir=tmp_path / "data", shards=2)
    with Client.open(settings, trusted=True) as client:
        job = client.ingest_folder(folder_of(tmp_path / "photos", range(16)))
        assert client.wait_job(job.id, PATIENCE_S).counts.indexed == 16
        sizes = [client.count()]
    (tmp_path / "data" / "shards" / "1-of-2" / "data.mdb").write_bytes(b"not a store")
    with Client.open(settings, trusted=True) as client:
        search = client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(0))), k=16)
        done = client.wait_search(search.ticket, PATIENCE_S)
    assert done.state is SearchState.PARTIAL
    assert done.report is not None
    assert (done.report["shards_asked"], done.report["shards_answered"]) == (2, 1)
    assert done.report["problem"]["code"] == "store"
    assert not done.report["complete"]
    assert 0 < len(done.hits) < sizes[0]
    with pytest.raises(Unavailable, match="store"):
        Client.open(settings, serve=True)


def test_another_number_of_shards_is_refused(base_settings: Settings, tmp_path: Path) -> None:
    settings = replace(base_settings, data_dir=tmp_path / "data", shards=2)
    with Client.open(settings, trusted=True) as client:
        assert client.count() == 0
    with pytest.raises(SettingsError, match="made with LOOKALIKE_SHARDS=2"):
        Client.open(replace(settings, shards=3), trusted=True)


def test_another_bundle_is_refused_with_both_names(
    base_settings: Settings, tmp_path: Path
) -> None:
    settings = replace(base_settings, data_dir=tmp_path / "data")
    with Client.open(settings, trusted=True) as client:
        client.count()
    with pytest.raises(Unavailable, match=r"lite0-128@.*lite0-20@"):
        Client.open(replace(settings, bundle="lite0-20"), trusted=True)


def test_the_first_searches_of_a_process_may_come_all_at_once(
    base_settings: Settings, tmp_path: Path
) -> None:
    with Client.open(replace(base_settings, data_dir=tmp_path / "data")) as client:
        searches = [
            client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(seed)))) for seed in range(6)
        ]
        done = [client.wait_search(search.ticket, PATIENCE_S) for search in searches]
    assert [search.state for search in done] == [SearchState.DONE] * 6


def test_a_site_may_ingest_only_the_folders_it_is_given(
    base_settings: Settings, tmp_path: Path
) -> None:
    allowed, other = folder_of(tmp_path / "in", range(1)), folder_of(tmp_path / "out", range(1))
    settings = replace(base_settings, data_dir=tmp_path / "data", folder_roots=(allowed,))
    with Client.open(settings, serve=True) as client:
        with pytest.raises(InvalidRequest, match="may not ingest"):
            client.ingest_folder(other)
        with pytest.raises(InvalidRequest, match="may not ingest"):
            client.ingest_folder(allowed / ".." / "out")
        job = client.ingest_folder(allowed)
        assert client.wait_job(job.id, PATIENCE_S).counts.indexed == 1
