"""``lookalike store compact``, ``retrain`` and ``recall`` on small collections."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ops.cli.exits import Exit
from ops.drill.small import small_segments
from ops.recall import gini, measure
from store import NewImage, Query, Shard, StoreSpec, merge, pack
from tests.ops.conftest import Run, objects

DIMS, ROWS, COUNT, SHARDS = 8, 16, 120, 2


def image(number: int, bits: int) -> NewImage:
    rng = np.random.default_rng(number)
    middle = np.random.default_rng(1000 + number % 6).normal(size=DIMS)
    feature = (middle + 0.3 * rng.normal(size=DIMS)).astype(np.float32)
    return NewImage(
        id=hashlib.sha256(b"%d" % number).hexdigest()[:32],
        code=pack(feature @ np.random.default_rng(1).normal(size=(DIMS, bits)) > 0),
        feature=feature,
        source=f"/{number}.jpg",
        origin=str(number),
        added_at=1e9,
        width_px=1,
        height_px=1,
        format="JPEG",
        size_bytes=1,
    )


def shard_folder(data_dir: Path, index: int) -> Path:
    return data_dir / "shards" / f"{index}-of-{SHARDS}"


def make_collection(data_dir: Path, bits: int) -> Path:
    """A collection of two shards of long or short codes."""
    spec = StoreSpec(bundle_id="tiny@0", bits=bits, dims=DIMS, metric="cosine")
    for index in range(SHARDS):
        with Shard.open(shard_folder(data_dir, index), spec) as shard:
            shard.insert([image(number, bits) for number in range(index, COUNT, SHARDS)])
    return data_dir


@pytest.fixture
def long_codes(tmp_path: Path) -> Path:
    return make_collection(tmp_path / "data", 40)


def test_compact_tells_what_it_freed(run: Run, tmp_path: Path) -> None:
    with small_segments(ROWS):
        data_dir = make_collection(tmp_path / "data", 20)
        with Shard.open_existing(shard_folder(data_dir, 0)) as shard:
            shard.delete([image(number, 20).id for number in range(0, 50, 4)])
        few = objects(run("store", "compact", "--data-dir", data_dir, "--dead", "0.9", "--json"))
        assert [each["segments"] for each in few] == [0, 0]
        done = objects(run("store", "compact", "--data-dir", data_dir, "--all", "--json"))
        assert [each["segments"] for each in done] == [2, 0]
        # Freed is what the file system says, and it counts in pages.
        assert [each["dead_slots"] for each in done] == [0, 0]
        told = run("store", "compact", "--data-dir", data_dir)
        assert "0 of 4 files compacted, 0 bytes freed" in told.stdout
        (one, two) = objects(run("store", "check", "--data-dir", data_dir, "--json"))
        assert one["ok"]
        assert two["ok"]


def test_retrain_learns_as_many_centres_as_it_is_told(run: Run, long_codes: Path) -> None:
    args = ["store", "retrain", "--data-dir", long_codes, "--centres", "7"]
    done = objects(run(*args, "--json"))
    assert [(each["retrained"], each["centres"]) for each in done] == [(True, 7), (True, 7)]
    assert all(each["buckets"] <= 7 for each in done)
    result = run(*args)
    assert result.exit_code == Exit.DONE
    assert "60 images, filed by 7 centre codes" in result.stdout
    assert run("store", "check", "--data-dir", long_codes).exit_code == Exit.DONE


def test_retrain_goes_on_with_what_was_cut_off(run: Run, long_codes: Path) -> None:
    with Shard.open_existing(shard_folder(long_codes, 0)) as shard:
        shard.begin_retraining(np.arange(15, dtype=np.uint8).reshape(3, 5))
        shard.retrain_step(10)
    one, two = objects(run("store", "retrain", "--data-dir", long_codes, "--json"))
    assert one["centres"] == 3
    different = {image(number, 40).code.tobytes() for number in range(1, COUNT, SHARDS)}
    assert two["centres"] == len(different) // 2


def test_retrain_refuses_short_codes(run: Run, tmp_path: Path) -> None:
    data_dir = make_collection(tmp_path / "data", 20)
    result = run("store", "retrain", "--data-dir", data_dir, "--json")
    assert result.exit_code == Exit.UNAVAILABLE
    assert objects(result)[0]["error"]["code"] == "nothing_to_retrain"
    assert "20 bits and are their own buckets" in result.stderr


def test_retrain_leaves_an_empty_shard_as_it_is(run: Run, tmp_path: Path) -> None:
    spec = StoreSpec(bundle_id="tiny@0", bits=40, dims=DIMS, metric="cosine")
    Shard.open(shard_folder(tmp_path, 0), spec).close()
    (told,) = objects(run("store", "retrain", "--data-dir", tmp_path, "--json"))
    assert (told["retrained"], told["centres"]) == (False, 256)


@pytest.mark.parametrize("bits", [20, 40])
def test_recall_compares_every_effort_with_the_exhaustive_search(
    run: Run, tmp_path: Path, bits: int
) -> None:
    data_dir = make_collection(tmp_path / "data", bits)
    args = ["store", "recall", "--data-dir", data_dir, "--sample", "15", "-k", "5"]
    (told,) = objects(run(*args, "--json"))
    assert (told["images"], told["queries"], told["k"]) == (COUNT, 15, 5)
    assert [each["effort"] for each in told["efforts"]] == list(range(1, 11))
    # So few images are all compared, whatever the effort.
    assert {each["recall"] for each in told["efforts"]} == {1.0}
    assert told["effort"] == 1
    assert [each["images"] for each in told["shards"]] == [60, 60]
    assert [each["centres"] for each in told["shards"]] == [0 if bits == 20 else 256] * 2
    text = run(*args).stdout
    assert "120 images, 15 queries, 5 hits each" in text
    assert "Effort 1 is the smallest with a recall of 0.95; the default is 4." in text
    # A line for each of the ten would say the same ten times.
    assert text.count(" ms\n") == 1
    assert "From effort 1 on every image is compared." in text


def test_recall_counts_what_is_found_of_what_there_is(
    long_codes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the hits of a search with few candidates, among those of the exhaustive one."""
    few = {effort: None if effort == 10 else 2 * effort for effort in range(1, 11)}
    monkeypatch.setattr("ops.recall.candidates_for", lambda effort, _: few[effort])
    shards = [Shard.open_existing(shard_folder(long_codes, index)) for index in range(SHARDS)]
    try:
        report = measure(shards, sample=COUNT, k=8, aim=0.9, seconds=60)
        assert report is not None
        by_hand = [found_of_true(shards, image(number, 40), few[1]) for number in range(COUNT)]
    finally:
        for shard in shards:
            shard.close()
    assert report.queries == COUNT
    assert report.efforts[0].recall == pytest.approx(np.mean(by_hand), abs=1e-4)
    assert report.efforts[0].worst == pytest.approx(np.min(by_hand), abs=1e-4)
    assert report.efforts[0].recall < report.efforts[8].recall <= report.efforts[9].recall == 1
    reaching = [each.effort for each in report.efforts if each.recall >= 0.9]
    assert report.effort == reaching[0]


def found_of_true(shards: list[Shard], one: NewImage, candidates: int | None) -> float:
    (code, feature), *_ = filter(None, (shard.vectors(one.id) for shard in shards))
    found = []
    for wanted in (candidates, None):
        query = Query(code=code, feature=feature, k=9, candidates=wanted)
        names = merge([shard.search(query) for shard in shards], 9).names()
        found.append({name for name in names if name != one.id})
    return len(found[0] & found[1]) / 8


def test_recall_stops_when_its_time_is_up(run: Run, long_codes: Path) -> None:
    args = ["store", "recall", "--data-dir", long_codes, "--seconds", "1e-9", "--sample", "50"]
    assert "1 query of 50, because time was up" in run(*args).stdout


def test_recall_has_nothing_to_say_of_a_single_image(run: Run, tmp_path: Path) -> None:
    spec = StoreSpec(bundle_id="tiny@0", bits=40, dims=DIMS, metric="cosine")
    with Shard.open(shard_folder(tmp_path, 0), spec) as shard:
        shard.insert([image(1, 40)])
    result = run("store", "recall", "--data-dir", tmp_path)
    assert result.exit_code == Exit.FAILED
    assert "fewer than two images" in result.stderr


@pytest.mark.parametrize("command", ["compact", "retrain", "recall"])
def test_without_a_collection_they_end_with_4(run: Run, tmp_path: Path, command: str) -> None:
    result = run("store", command, "--data-dir", tmp_path)
    assert result.exit_code == Exit.NOT_FOUND


def test_the_gini_coefficient_is_0_where_all_are_equal_and_nears_1_where_one_has_all() -> None:
    assert gini(np.array([5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 12])) == pytest.approx(0.75)
    assert gini(np.array([3, 1])) == pytest.approx(0.25)
    assert gini(np.array([], np.int64)) == 0
