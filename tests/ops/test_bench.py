"""The benchmarks measure what they say and leave nothing behind; speed itself is not tested."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ops.bench import ingest as bench_ingest
from ops.bench.bare import Arrangement
from ops.bench.figures import spread, spreads
from ops.bench.photos import write_variants
from ops.bench.stages import per_image_ms
from ops.cli.exits import Exit
from ops.services import RabbitMQ
from tests.ops.conftest import PATIENCE_S, Environment, Run, objects, process

MACHINE = {"cores", "machine", "system", "python", "versions", "load_average"}
INGEST_STAGES = {"claim", "feed", "decode", "embed", "store", "ledger", "elsewhere"}


@pytest.fixture
def one_arrangement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try one way of spreading the bare loop instead of three."""
    only = [Arrangement(1, 1, apart=False)]
    monkeypatch.setattr(bench_ingest, "arrangements", lambda cores: only)


def check_percentiles(figures: dict[str, float], *names: str) -> None:
    values = [figures[name] for name in names]
    assert values == sorted(values)
    assert values[0] > 0


def check_ingest(told: list[dict[str, Any]], *, images: int, broker: str) -> None:
    *rounds, whole = told
    assert [entry["bench"] for entry in rounds] == ["ingest.round"] * len(rounds)
    assert whole["bench"] == "ingest"
    assert whole["machine"].keys() == MACHINE
    assert (whole["images"], whole["rounds"], whole["broker"]) == (images, len(rounds), broker)
    for entry in rounds:
        assert entry["indexed"] == images
        assert entry["ratio"] == pytest.approx(
            entry["images_per_s"] / entry["bare_images_per_s"], rel=0.01
        )
        assert entry["stages_ms_per_image"].keys() >= INGEST_STAGES
        assert sum(entry["stages_ms_per_image"].values()) > 0
    assert min(whole["ratios"]) <= whole["ratio"] <= max(whole["ratios"])


def test_percentiles_are_named_and_stages_may_be_missing() -> None:
    assert spread([1.0, 2.0, 3.0]) == {"p50": 2.0, "p95": 2.9}
    assert spreads([{"a": 1.0}, {"a": 3.0, "b": 5.0}])["a"]["p50"] == 2.0
    assert spreads([{"a": 1.0}, {"a": 3.0, "b": 5.0}])["b"] == {"p50": 5.0, "p95": 5.0}


def test_the_stages_of_all_workers_add_up_to_their_time() -> None:
    notes = [
        {"process": 1, "ended_at": 1.0, "stages_ms": {"decode": 300.0, "embed": 500.0}},
        {"process": 2, "ended_at": 1.0, "stages_ms": {"decode": 200.0, "embed": 600.0}},
    ]
    stages = per_image_ms(notes, images=10, seconds=1.0)
    assert stages == {"decode": 50.0, "embed": 110.0, "elsewhere": 40.0}


def test_variants_of_the_demo_photos_are_different_files(tmp_path: Path) -> None:
    made = write_variants(tmp_path / "a", wanted=145)
    more = write_variants(tmp_path / "b", wanted=5, skip=145)
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in (*made, *more)}
    assert len(digests) == 150


def test_extract_tells_every_batch_with_every_number_of_threads(run: Run, photos: Path) -> None:
    args = ["--images", photos, "--batches", "1,4", "--threads", "1,2", "--rounds", 1]
    told = objects(run("bench", "extract", *args, "--json"))
    assert [(entry["threads"], entry["batch"]) for entry in told] == [
        (1, 1),
        (1, 4),
        (2, 1),
        (2, 4),
    ]
    for entry in told:
        assert entry["machine"].keys() == MACHINE
        assert entry["images"] == 6
        stages = [entry[f"{stage}_ms"] for stage in ("decode", "preprocess", "network")]
        for stage in stages:
            check_percentiles(stage, "p50", "p95")
        whole_ms = sum(stage["p50"] for stage in stages)
        assert entry["images_per_s"] == pytest.approx(1000 / whole_ms, rel=0.01)


def test_ingest_compares_the_embedded_default_with_a_bare_loop(
    run: Run, photos: Path, one_arrangement: None
) -> None:
    args = ["--images", photos, "--warm-up", 2, "--rounds", 2, "--broker", "embedded"]
    result = run("bench", "ingest", *args, "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    check_ingest(objects(result), images=6, broker="embedded")


def test_ingest_compares_workers_on_rabbitmq_with_a_bare_loop(
    run: Run, rabbitmq: RabbitMQ, one_arrangement: None
) -> None:
    args = ["--photos", 5, "--warm-up", 2, "--rounds", 1]
    result = run("bench", "ingest", *args, "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    check_ingest(objects(result), images=5, broker="rabbitmq")


def test_end_to_end_tells_every_stage_and_whether_photos_find_themselves(
    run: Run, rabbitmq: RabbitMQ, photos: Path
) -> None:
    args = ["--images", photos, "--queries", 7, "--warm-up", 1, "--k", 3]
    result = run("bench", "e2e", *args, "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    (told,) = objects(result)
    assert (told["images"], told["queries"], told["self_first"]) == (6, 7, 7)
    check_percentiles(told, "p50_ms", "p95_ms", "p99_ms")
    stages = told["stages_ms"]
    assert stages.keys() >= {"queued", "decode", "network", "fan_out", "total", "post", "wait"}
    assert stages["total"]["p50"] < told["p95_ms"]
    assert stages["post"]["p50"] < told["p50_ms"]


def test_without_json_figures_are_lines_for_people(run: Run, photos: Path) -> None:
    result = run("bench", "extract", "--images", photos, "--batches", "2", "--threads", "1")
    assert "network_ms.p50" in result.stdout
    assert "{" not in result.stdout


def test_a_folder_without_images_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("bench", "extract", "--images", tmp_path, "--json")
    assert result.exit_code == Exit.UNAVAILABLE
    assert "holds no images" in json.loads(result.stdout)["error"]["message"]


def test_an_interrupted_benchmark_ends_all_that_it_started(
    rabbitmq: RabbitMQ, cli_env: Environment, tmp_path: Path
) -> None:
    env = {**cli_env, "TMPDIR": str(tmp_path)}
    args = ["bench", "ingest", "--photos", 4, "--warm-up", 2, "--rounds", 1_000]
    with process(*args, env=env) as running:
        started = wait_for_workers(running)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=PATIENCE_S)
    assert running.returncode == Exit.INTERRUPTED
    wait_until_gone(started)
    assert not list(tmp_path.iterdir())


def wait_for_workers(running: subprocess.Popen[str]) -> list[str]:
    """Wait until the benchmark has broker and worker, and return the ids of its processes."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = descendants(str(running.pid))
        commands = " ".join(text_of(Path("/proc", pid, "cmdline")) for pid in found)
        if "beam" in commands and "bulk" in commands:
            return found
        time.sleep(0.05)
    raise AssertionError("the benchmark started no worker")


def text_of(path: Path) -> str:
    """Return what a file of a process says, or nothing when it has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until_gone(pids: Sequence[str]) -> None:
    """Wait for what ends on its own because its parent has."""
    deadline = time.monotonic() + PATIENCE_S
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def is_alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: str) -> list[str]:
    """Return the ids of a process's children, and of theirs."""
    children = [
        child
        for task in Path("/proc", pid, "task").glob("*/children")
        for child in text_of(task).split()
    ]
    return [*children, *(below for child in children for below in descendants(child))]
