"""``lookalike model quantise`` makes a bundle that the other commands use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from ops.cli.exits import Exit
from tests.ops.conftest import Run, objects


@pytest.fixture(autouse=True)
def everything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on six pictures may be too short for a log otherwise."""
    monkeypatch.setattr("models.progress._SILENT_S", 1e-9)


@pytest.fixture
def made(run: Run, photos: Path, tmp_path: Path) -> Result:
    """A bundle in the folder of bundles, of the six pictures."""
    args = ["lite0-20", "--images", photos, "--count", 4, "--bundles-dir", tmp_path]
    return run("model", "quantise", *args, "--json")


def test_a_quantised_bundle_is_found_by_name(run: Run, made: Result, tmp_path: Path) -> None:
    assert made.exit_code == Exit.DONE, made.stderr
    (told,) = objects(made)
    assert told["id"].startswith("lite0-20-int8@")
    assert told["of"].startswith("lite0-20@")
    assert told["path"] == str(tmp_path / "lite0-20-int8")
    assert told["images"] == 2  # those that the ranges are not from
    assert 0.9 < told["cosine_min"] <= told["cosine"] < 1
    assert 0 <= told["bits_differing"] < 5
    info = run("model", "info", "--bundle", "lite0-20-int8", "--bundles-dir", tmp_path, "--json")
    assert objects(info)[0]["id"] == told["id"]


def test_progress_is_told_apart_from_the_result(made: Result) -> None:
    assert "measuring lite0-20" in made.stderr
    assert "calibrating lite0-20" in made.stderr
    assert len(made.stdout.splitlines()) == 1


def test_a_bundle_that_is_there_is_not_written_over(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    args = ["lite0-20", "--images", photos, "--out", tmp_path]
    result = run("model", "quantise", *args, "--json")
    assert result.exit_code == Exit.UNAVAILABLE
    error = json.loads(result.stdout)["error"]
    assert error["message"] == f"{tmp_path} exists."
    assert error["remedy"] == "Delete it, or choose another place."


def test_a_folder_without_images_is_refused(run: Run, tmp_path: Path) -> None:
    args = ["lite0-20", "--images", tmp_path, "--out", tmp_path / "variant"]
    result = run("model", "quantise", *args)
    assert result.exit_code == Exit.UNAVAILABLE
    assert "holds no images" in result.stderr
    assert not (tmp_path / "variant").exists()


def test_images_that_cannot_be_read_are_told_of(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    args = ["lite0-20", "--images", tmp_path, "--out", tmp_path / "variant"]
    result = run("model", "quantise", *args)
    assert result.exit_code == Exit.UNAVAILABLE
    assert "left out: " in result.stderr
    assert "None of the images can be used. Name another folder" in result.stderr


def test_without_json_the_result_is_lines_for_people(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    args = ["lite0-20", "--images", photos, "--count", 2, "--out", tmp_path / "variant"]
    result = run("model", "quantise", *args)
    assert result.stdout.startswith("lite0-20-int8@")
    assert "of 20 on average" in result.stdout
