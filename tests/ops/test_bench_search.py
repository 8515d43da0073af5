"""``lookalike bench search`` measures what it says; speed itself is not tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops.bench import search_build
from ops.bench.search_ask import Found
from ops.bench.search_build import open_collection
from ops.bench.search_compare import compare
from ops.bench.search_data import Synthetic
from ops.bench.search_truth import Truth
from ops.bench.search_ways import Way, take_turns
from ops.bench.synthetic import ids_of, rows_of
from ops.cli.console import Console
from ops.cli.exits import Exit
from tests.ops.conftest import Run, objects

KEYS = {"way", "stage", "n", "bits", "dims", "k", "p50_ms", "p99_ms", "recall", "memory_mb"}
SMALL = ("--dims", 32, "--queries", 6, "--k", 5, "--rounds", 2)


@pytest.fixture
def console() -> Console:
    return Console(json=True)


@pytest.fixture
def source() -> Synthetic:
    return Synthetic(n=500, dims=32, bits=128)


def told_of(run: Run, *args: object) -> list[dict[str, Any]]:
    result = run("bench", "search", *SMALL, *args, "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    told = objects(result)
    assert all(entry.keys() >= KEYS for entry in told)
    return told


def test_every_way_is_told_of_with_time_recall_and_memory(run: Run) -> None:
    told = told_of(run, "--n", 600, "--bits", "20,128", "--efforts", "1,10", "--no-peers")
    whole = [entry for entry in told if entry["stage"] == "whole"]
    assert [(entry["bits"], entry["effort"]) for entry in whole] == [
        (20, 1),
        (20, 10),
        (128, 1),
        (128, 10),
    ]
    for entry in whole:
        assert 0 < entry["p50_ms"] <= entry["p99_ms"]
        assert 0 < entry["recall"] <= 1
        assert "draw" in entry["made_of"]
    assert all(entry["recall"] > 0.99 for entry in whole if entry["effort"] == 10)
    assert {entry["stage"] for entry in told} >= {"whole", "build", "open"}


def test_peers_are_asked_the_same_and_find_it(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    args = ["--n", 600, "--peers-n", 400, "--efforts", "1", "--stages", "candidates,whole"]
    told = told_of(run, *args, "--plot", tmp_path)
    peers = [entry for entry in told if entry["way"].startswith("faiss")]
    for entry in peers:
        assert entry["memory_mb"] > 0
    found = {entry["way"]: entry["recall"] for entry in peers}
    assert found["faiss IndexBinaryFlat"] == found["faiss IndexFlatIP"] == 1
    # Every list is probed: nothing may be missed by the way of scanning that was chosen.
    lists = [entry for entry in peers if entry["way"] == "faiss IndexBinaryIVF"]
    assert max(entry["recall"] for entry in lists) == 1
    assert {entry["n"] for entry in told if entry["stage"] == "candidates"} == {600}
    ours = [entry for entry in told if entry["way"] == "lookalike" and entry["n"] == 400]
    assert {"faiss IndexIVFFlat", "faiss IndexHNSWFlat"} <= ours[0]["against"].keys()
    assert (tmp_path / "recall-whole-128-400.png").read_bytes().startswith(b"\x89PNG")


def test_without_faiss_the_store_is_measured_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.bench.peers.find_spec", lambda name: None)
    result = run(
        "bench", "search", *SMALL, "--n", 600, "--efforts", 1, "--stages", "whole", "--json"
    )
    assert "lookalike[bench]" in result.stderr
    assert {entry["way"] for entry in objects(result)} == {"lookalike"}


def test_a_store_is_measured_cold_and_while_it_is_written_to(run: Run) -> None:
    stages = "cold,insert,delete,writes"
    told = told_of(run, "--n", 600, "--efforts", 1, "--stages", stages, "--no-peers")
    assert [entry["stage"] for entry in told] == ["cold", "writes", "insert", "delete", "delete"]
    by_stage = {entry["stage"]: entry for entry in told}
    assert by_stage["writes"]["written"] > 0
    assert by_stage["insert"]["images_per_s"] > 0
    assert [entry["batch"] for entry in told if entry["stage"] == "delete"] == [1, 64]


def test_real_features_are_read_from_a_file(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    features = rng.random((700, 24), np.float32)
    codes = np.packbits(features[:, :20] > 0.5, axis=1)
    np.savez(tmp_path / "real.npz", features=features, codes=codes)
    args = ["--features", tmp_path / "real.npz", "--bits", 20, "--no-peers"]
    (entry,) = told_of(run, *args, "--efforts", 1, "--stages", "whole")
    assert (entry["n"], entry["dims"], entry["bits"]) == (630, 24, 20)
    assert "real.npz" in entry["made_of"]


def test_a_file_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", features=np.zeros((30, 4), np.float32), codes=np.zeros(30))
    result = run("bench", "search", "--features", tmp_path / "other.npz", "--json")
    assert result.exit_code != Exit.DONE
    assert "Give the length of its codes" in json.loads(result.stdout)["error"]["remedy"]


def test_without_json_figures_are_a_table(run: Run) -> None:
    result = run(
        "bench", "search", *SMALL, "--n", 600, "--efforts", 1, "--stages", "whole", "--no-peers"
    )
    assert result.stdout.startswith("stage")
    assert "lookalike" in result.stdout
    assert "{" not in result.stdout


def test_a_collection_is_built_once_and_never_taken_half_built(
    source: Synthetic, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = search_build._fill
    calls = []

    def fail(*args: Any) -> Any:
        fill(*args)
        raise KeyboardInterrupt

    def count(*args: Any) -> Any:
        calls.append(args)
        return fill(*args)

    monkeypatch.setattr(search_build, "_fill", fail)
    with pytest.raises(KeyboardInterrupt):
        open_collection(source, tmp_path, console)
    monkeypatch.setattr(search_build, "_fill", count)
    first = open_collection(source, tmp_path, console)
    again = open_collection(source, tmp_path, console)
    assert len(calls) == 1
    assert first.facts == again.facts
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [first.folder.name]


def test_made_up_images_are_the_same_again_and_queries_are_not_stored(
    source: Synthetic, tmp_path: Path, console: Console
) -> None:
    collection = open_collection(source, tmp_path, console)
    rows = np.array([3, 400, 7])
    again = Synthetic(n=500, dims=32, bits=128).at(rows, collection.folder)
    np.testing.assert_array_equal(again.features, collection.at(rows).features)
    np.testing.assert_array_equal(again.codes, collection.codes[rows])
    everything = collection.at(np.arange(500)).features
    assert not (collection.queries.features[:, None] == everything).all(2).any()


def test_the_truth_is_that_of_comparing_everything(
    source: Synthetic, tmp_path: Path, console: Console
) -> None:
    collection = open_collection(source, tmp_path, console)
    truth = Truth(collection, 3, 500)
    features, query = collection.at(np.arange(500)).features, collection.queries.features[1]
    cosines = features @ query / np.linalg.norm(features, axis=1)
    nearest = np.argsort(-cosines)[:100]
    assert truth.share_of_exhaustive(1, nearest, 100) == 1
    assert truth.share_of_exhaustive(1, nearest[50:], 100) == 0.5
    assert truth.share_of_scan(1, nearest[:20], 500, 20) == pytest.approx(1, abs=0.06)
    distances = np.bitwise_count(collection.codes ^ collection.queries.codes[1]).sum(1)
    assert truth.share_of_codes(1, np.sort(distances)[:50], 50) == 1
    assert truth.share_of_codes(1, np.sort(distances)[-50:], 50) == 0


def test_ids_tell_their_row() -> None:
    rows = np.array([0, 1, 2**40])
    assert len(np.unique(ids_of(rows), axis=0)) == 3
    np.testing.assert_array_equal(rows_of(ids_of(rows)), rows)


def test_ways_take_turns_and_answer_each_query_once() -> None:
    log: list[tuple[str, int]] = []

    def way(name: str) -> Way:
        def ask(i: int) -> Found:
            log.append((name, i))
            return Found(rows=np.array([i]))

        return Way(name, "whole", ask)

    ways = [way("a"), way("b")]
    take_turns(ways, queries=5, known=9, rounds=2)
    for each in ways:
        assert sorted(each.spent_ms) == sorted(each.found) == [0, 1, 2, 3, 4]
    measured = [entry for entry in log if entry[1] < 5][-10:]
    assert [name for name, _ in measured] == ["a", "a", "a", "b", "b", "a", "a", "b", "b", "b"]


def test_a_peer_is_compared_at_equal_recall() -> None:
    def entry(way: str, p50_ms: float, recall: float) -> dict[str, Any]:
        same = {"stage": "candidates", "candidates": 10, "memory_mb": 1.0}
        times = {"p50_ms": p50_ms, "cpu_p50_ms": p50_ms / 2}
        return {"way": way, "recall": recall, **times, **same}

    peers = [entry("peer", 1.0, 0.8), entry("peer", 4.0, 1.0), entry("weak", 1.0, 0.1)]
    ours, *_ = compare([entry("lookalike", 1.0, 0.9), *peers])
    assert ours["against"]["peer"]["p50_ms"] == pytest.approx(2)
    assert ours["against"]["peer"]["ratio"] == pytest.approx(0.5)
    assert ours["against"]["peer"]["cpu_ratio"] == pytest.approx(0.5)
    assert ours["against"]["weak"]["ratio"] is None
