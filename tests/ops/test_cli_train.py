"""``lookalike train`` on tiny pictures and a real network."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ops.cli.exits import Exit
from tests.ops.conftest import PATIENCE_S, Environment, Run, objects, process

pytest.importorskip("torch")

COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
FAST = ("--base", "lite0-imagenet", "--input-px", 32, "--bits", 32)


@pytest.fixture(autouse=True)
def everything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on a few tiny pictures is too short for a log otherwise."""
    monkeypatch.setattr("models.progress._SILENT_S", 1e-9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose colour tells the class, one of them broken."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(8):
            noise = rng.integers(-40, 41, (32, 32, 3))
            picture = Image.fromarray((np.array(colour) + noise).astype(np.uint8))
            picture.save(root / name / f"{number}.png")
    (root / "red" / "broken.png").write_text("no image")
    return root


def test_a_bundle_is_trained_named_and_used(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("train", "--data", data, *FAST, "--name", "colours", "--epochs", 2, "--json")
    assert result.exit_code == Exit.DONE, result.stderr
    (told,) = objects(result)
    assert told["id"].startswith("colours@")
    assert (told["bits"], told["dims"], told["images"], told["held_out"]) == (32, 1280, 21, 3)
    assert (told["skipped"], told["epochs"], told["caffe"]) == (1, 2, True)
    assert "image/s" in result.stderr
    assert "\r" not in result.stderr
    assert "1 image could not be read" in result.stderr
    assert "broken.png: not a picture" in result.stderr
    assert "lookalike evaluate colours --data" in result.stderr
    assert "--data-dir NEW --bundle colours\n" in result.stderr
    assert Path(told["path"]).is_absolute()
    log = json.loads((Path(told["path"]) / "training.json").read_text())
    assert log["base"] == "lite0-imagenet"
    assert log["code_weight"]["weight"] == told["code_weight"]
    (info,) = objects(run("model", "info", "--bundle", "colours", "--json"))
    assert info["id"] == told["id"]


def test_another_code_is_learned_on_the_features_that_are_kept(
    run: Run, data: Path, tmp_path: Path
) -> None:
    first = run("train", "--data", data, *FAST, "--out", tmp_path / "long", "--epochs", 1)
    assert first.exit_code == Exit.DONE, first.stderr
    shared = ("--data", data, "--base", tmp_path / "long", "--bits", 12, "--epochs", 1)
    second = run("train", *shared, "--out", tmp_path / "short", "--json")
    assert objects(second)[0]["bits"] == 12, second.stderr
    again = run("train", *shared, "--out", tmp_path / "again", "--name", "short", "--json")
    assert objects(again)[0]["id"] == objects(second)[0]["id"]
    assert "labelled" not in again.stderr.replace(str(data), "")


def test_what_was_killed_goes_on_and_gives_the_same_bundle(
    run: Run, cli_env: Environment, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    args = ("train", "--data", data, *FAST, "--name", "colours", "--epochs", 60)
    checkpoint = tmp_path / "killed.unfinished" / "layer" / "checkpoint.pt"
    deadline = time.monotonic() + PATIENCE_S
    with process(*args, "--out", out, env=cli_env) as running:
        while not checkpoint.exists():
            assert running.poll() is None, running.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait(PATIENCE_S)
    assert not out.exists()
    resumed = run(*args, "--out", out, "--json")
    assert json.loads((out / "training.json").read_text())["resumed"], resumed.stderr
    whole = run(*args, "--out", tmp_path / "whole", "--json")
    assert objects(resumed)[0]["id"] == objects(whole)[0]["id"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--bits", 7), Exit.USAGE, "7 is not in the range 8<=x<=256"),
        (("--out", "DATA"), Exit.UNAVAILABLE, "exists. Delete it, or choose another --out"),
        (("--data", "DATA/nowhere"), Exit.NOT_FOUND, "there is no folder or CSV"),
        (("--data", "DATA/red"), Exit.FAILED, "at least two classes are needed"),
        (("--base", "lite9"), Exit.UNAVAILABLE, "other bases are lite0-imagenet"),
        (("--base", "w.caffemodel"), Exit.USAGE, "give its --prototxt too"),
        (("--rate", "1e38"), Exit.FAILED, "the loss is not a number"),
        (("--finetune", "--balance", 1), Exit.USAGE, "--balance cannot be set with --finetune"),
        (("--cutmix", 0.5), Exit.USAGE, "--cutmix cannot be set without --finetune"),
        (("--finetune", "--cutmix", 1.5), Exit.USAGE, "1.5 is not in the range 0<=x<=1"),
        (("--name", "A B"), Exit.USAGE, "Give another --name"),
        (("--name", "lite0-128"), Exit.USAGE, "comes with lookalike. Give another --name"),
        (("--code-weight", "nan"), Exit.USAGE, "'--code-weight': nan is not a finite number"),
        (("--code-weight", "-1"), Exit.USAGE, "-1.0 is not in the range x>=0"),
    ],
)
def test_what_cannot_work_ends_with_its_code_and_leaves_no_bundle(
    run: Run, data: Path, tmp_path: Path, args: tuple[str, ...], code: Exit, message: str
) -> None:
    given = [str(each).replace("DATA", str(data)) for each in args]
    usual = ("train", "--data", data, *FAST, "--out", tmp_path / "out")
    result = run(*usual, *given)
    assert result.exit_code == code, result.stderr
    assert message.lower() in result.stderr.lower()
    assert not (tmp_path / "out").exists()


def test_with_a_place_of_its_own_a_bundle_is_used_by_its_whole_path(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("--out", "here", "--name", "mine", "--epochs", 1, "--code-weight", 1.5, "--json")
    result = run("train", "--data", data, *FAST, *args)
    assert result.exit_code == Exit.DONE, result.stderr
    assert f"--bundle {tmp_path / 'here'}\n" in result.stderr
    (told,) = objects(result)
    assert (told["path"], told["code_weight"]) == (str(tmp_path / "here"), 1.5)


def test_a_place_is_needed(run: Run, data: Path) -> None:
    result = run("train", "--data", data, *FAST)
    assert result.exit_code == Exit.USAGE
    assert "Give --out, or --name" in result.stderr
