"""``lookalike bench engines`` lets engines take turns; speed itself is not tested."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from tqdm import tqdm

from models.bundle import Bundle
from models.catalogue import ensure_bundle
from models.engine import Engine
from models.errors import EngineError
from ops.bench import engines
from ops.bench.engines import Turn, figures, take_turns
from ops.cli.exits import Exit
from tests.ops.conftest import Environment, Run, objects

SMALL = ("--bundle", "lite0-20", "--threads", 1, "--rounds", 2)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrate on few photos, and keep tqdm from starting a thread that outlives the test."""
    monkeypatch.setattr(engines, "_PHOTOS", 2)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


@pytest.fixture
def no_caffe(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> ModuleType:
        raise EngineError("pycaffe is not installed; run `make caffe`")

    monkeypatch.setattr("models.caffe_engine.import_caffe", missing)


class Recorder:
    """Stands for an engine, and notes when it is asked."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def embed(self, pixels: NDArray[np.uint8]) -> None:
        self.log.append(f"{self.name} {len(pixels)}")


def test_engines_take_turns_in_changing_order() -> None:
    log: list[str] = []
    asked = cast("dict[str, Engine]", {name: Recorder(name, log) for name in "abc"})
    turns = take_turns(asked, np.zeros((2, 8, 8, 3), np.uint8), rounds=3)
    rounds = [log[first : first + 3] for first in range(0, len(log), 3)]
    assert [set(each) for each in rounds] == [{"a 2", "b 2", "c 2"}] * 4
    assert [each[0] for each in rounds] == ["a 2", "a 2", "b 2", "c 2"]  # the first is a warm-up
    assert {name: len(of_one) for name, of_one in turns.items()} == {"a": 3, "b": 3, "c": 3}


def test_ratios_are_medians_of_those_of_the_rounds() -> None:
    turns = {
        "onnx": [Turn(1.0, 2.0), Turn(1.0, 2.0), Turn(4.0, 2.0)],
        "caffe": [Turn(2.0, 4.0), Turn(3.0, 4.0), Turn(4.0, 4.0)],
    }
    told = figures(turns, 4)
    assert told["ratios"] == {"onnx_to_caffe": {"wall": 2.0, "cpu": 2.0}}
    assert told["engines"]["onnx"]["images_per_s"] == 4.0
    assert told["engines"]["onnx"]["cpu_ms_per_image"] == 500.0
    assert told["engines"]["caffe"]["ms_per_image"]["p50"] == 750.0


def check(entry: dict[str, Any], *, names: set[str], ratios: set[str]) -> None:
    assert entry["engines"].keys() == names
    assert entry["ratios"].keys() == ratios
    for speed in entry["engines"].values():
        assert 0 < speed["ms_per_image"]["p50"] <= speed["ms_per_image"]["p95"]
        assert speed["images_per_s"] == pytest.approx(
            1000 / speed["ms_per_image"]["p50"], rel=0.01
        )
        assert speed["cpu_ms_per_image"] > 0
    for ratio in entry["ratios"].values():
        assert min(ratio.values()) > 0


def test_all_three_are_measured_where_caffe_is_installed(run: Run, pycaffe: ModuleType) -> None:
    result = run("bench", "engines", *SMALL, "--batches", "1,2", "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    told = objects(result)
    assert [(entry["threads"], entry["batch"]) for entry in told] == [(1, 1), (1, 2)]
    for entry in told:
        assert entry["bundle"].startswith("lite0-20@")
        assert entry["left_out"] == {}
        check(
            entry,
            names={"onnx", "caffe", "onnx_int8"},
            ratios={"onnx_to_caffe", "onnx_int8_to_onnx", "onnx_int8_to_caffe"},
        )


def test_without_caffe_it_says_so_and_measures_the_rest(run: Run, no_caffe: None) -> None:
    result = run("bench", "engines", *SMALL, "--batches", "2", "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    (entry,) = objects(result)
    check(entry, names={"onnx", "onnx_int8"}, ratios={"onnx_int8_to_onnx"})
    assert entry["left_out"] == {"caffe": "pycaffe is not installed; run `make caffe`"}


def test_a_network_in_integers_is_measured_alone(
    run: Run, no_caffe: None, photos: Path, tmp_path: Path
) -> None:
    made = tmp_path / "variant"
    args = ["lite0-20", "--images", photos, "--count", 2, "--out", made]
    assert run("model", "quantise", *args).exit_code == Exit.DONE
    args = ["--bundle", made, "--threads", 1, "--rounds", 1, "--batches", "1"]
    (entry,) = objects(run("bench", "engines", *args, "--json"))
    check(entry, names={"onnx"}, ratios=set())
    assert "in integers already" in entry["left_out"]["onnx_int8"]


def test_caffenet_is_the_default(
    run: Run, no_caffe: None, cli_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stand_in(folder: Path) -> Bundle:
        asked.append(folder)
        return ensure_bundle("lite0-20", cache_dir=Path(cli_env["LOOKALIKE_CACHE_DIR"]))

    monkeypatch.setattr(engines, "_random_caffenet", stand_in)
    result = run("bench", "engines", "--threads", 1, "--rounds", 1, "--batches", "1")
    assert result.exit_code == Exit.DONE, result.stderr
    assert len(asked) == 1
    assert not asked[0].exists()
    assert "engines.onnx.images_per_s" in result.stdout


def test_a_bundle_that_is_not_there_is_refused(run: Run) -> None:
    result = run("bench", "engines", "--bundle", "nowhere", "--json")
    assert result.exit_code == Exit.UNAVAILABLE
    assert "there is no bundle 'nowhere'" in json.loads(result.stdout)["error"]["message"].lower()
