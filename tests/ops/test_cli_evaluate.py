"""`lookalike evaluate` on small pictures, with a network that is small and real."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tqdm import tqdm

from ops.cli.exits import Exit
from ops.evaluation import curves
from tests.ops.coloured import class_folders, tiny_bundle
from tests.ops.conftest import Run, objects

FILES = ["bits.png", "precision.png", "recall.png", "report.html", "report.json"]


@pytest.fixture(autouse=True)
def no_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "twelve", name="twelve", bits=12)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of each of three classes to search, two of each to search for."""
    root = tmp_path_factory.mktemp("parts")
    class_folders(root / "train", 20)
    class_folders(root / "test", 2, seed=1)
    return root


@pytest.fixture(scope="module")
def measured(run: Run, bundle: Path, parts: Path) -> dict[str, Any]:
    (record,) = objects(_ok(run("evaluate", bundle, "--data", parts, "--json")))
    return record


def _ok(result: Result) -> Result:
    assert result.exit_code == 0, result.stderr
    return result


def test_the_record_tells_every_figure_with_its_settings(measured: dict[str, Any]) -> None:
    assert measured["database"]["images"] == 60
    assert measured["queries"] == {"images": 6, "classes": 3, "skipped": 0, "first_skipped": []}
    assert measured["settings"]["k"] == 60
    assert measured["bundle"]["name"] == "twelve"
    # Six dimensions: ITQ cannot make twelve bits of them.
    assert list(measured["rankings"]) == ["codes", "reranked", "features"]
    for name in ("codes", "reranked", "features"):
        each = measured["rankings"][name]
        # With all 60 hits counted, every relevant image is found.
        assert each["map_at_k"] == each["map_at_k_of_all"]
        assert each["precision_at"].keys() == {"1", "10"}
        assert 0.5 < each["map_at_k"] <= 1
    assert measured["map_at_k"] == measured["rankings"]["codes"]["map_at_k"]
    assert measured["map_at_k_reranked"] == measured["rankings"]["reranked"]["map_at_k"]
    assert measured["against"] is None


def test_the_order_of_equal_codes_bounds_the_score(measured: dict[str, Any]) -> None:
    ties = {name: pair["map_at_k"] for name, pair in measured["ties"].items()}
    assert ties["relevant_last"] <= ties["expected"] <= ties["relevant_first"]
    assert ties["relevant_last"] <= measured["map_at_k"] <= ties["relevant_first"]


def test_a_small_store_is_searched_completely(measured: dict[str, Any]) -> None:
    (only,) = measured["searches"]
    assert only["effort"] == 10
    assert only["recall"] == {"1": 1.0, "10": 1.0}
    assert only["candidates"] == 60
    assert measured["recall_at"] == {"1": 1.0, "10": 1.0}
    # What the store finds by comparing everything is what the arrays say.
    features = measured["rankings"]["features"]["precision_at"]
    assert only["precision"]["10"] == pytest.approx(features["10"], abs=0.02)


def test_bits_buckets_and_stored_features_are_described(measured: dict[str, Any]) -> None:
    assert len(measured["bits"]["ones_by_bit"]) == 12
    assert 0 < measured["bits"]["effective_bits"] <= 12
    assert 1 <= measured["buckets"]["used"] <= 60
    assert measured["stored"].keys() == {"int8", "float16"}
    assert abs(measured["stored"]["float16"]["features"]["loss"]) < 0.01


def test_people_get_a_table(run: Run, bundle: Path, parts: Path) -> None:
    out = _ok(run("evaluate", bundle, "--data", parts, "--k", "10")).stdout
    assert "6 queries, 60 images of 3 classes, 0 skipped" in out
    assert re.search(r"codes alone +0\.\d{4}", out)
    assert "mAP@10" in out


def test_class_folders_alone_are_split_by_seed(run: Run, bundle: Path, tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 10)
    args = ("evaluate", bundle, "--data", data, "--sample", "5", "--json")
    first, again = (objects(_ok(run(*args)))[0] for _ in range(2))
    assert (first["database"]["images"], first["queries"]["images"]) == (25, 5)
    untimed = [
        {**each, "searches": [{**row, "p50_ms": 0, "p95_ms": 0} for row in each["searches"]]}
        for each in (first, again)
    ]
    assert untimed[0] == untimed[1]


def test_queries_may_lie_elsewhere_and_miss_classes(
    run: Run, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    queries = class_folders(tmp_path / "queries", 2, seed=3, classes=2)
    options = ("--data", parts / "train", "--queries", queries, "--json")
    (record,) = objects(_ok(run("evaluate", bundle, *options)))
    assert (record["database"]["classes"], record["queries"]["classes"]) == (3, 2)


@pytest.fixture(scope="module")
def report(
    run: Run, bundle: Path, parts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("report")
    other = tiny_bundle(root / "other", name="five", bits=5)
    options = ("--against", other, "--out", root / "out", "--cache", root / "cache")
    _ok(run("evaluate", bundle, "--data", parts, *options))
    return root / "out"


def test_the_report_is_five_files(report: Path) -> None:
    assert sorted(path.name for path in report.iterdir()) == FILES
    for name in FILES[:3]:
        assert (report / name).read_bytes().startswith(b"\x89PNG")
    record = json.loads((report / "report.json").read_bytes())
    assert (record["bundle"]["bits"], record["against"]["bundle"]["bits"]) == (12, 5)
    assert record["against"]["rankings"]["itq"]["map_at_k"] > 0


def test_the_page_needs_nothing_but_itself(report: Path) -> None:
    page = (report / "report.html").read_text()
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', page):
        assert address.startswith("data:"), address
    assert "<script" not in page
    assert "url(" not in page
    assert page.count("data:image/png") == 3
    assert page.count('class="right"') + page.count('class="wrong"') == 6 * 10 * 4


def test_names_of_classes_are_escaped(run: Run, bundle: Path, tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 5)
    (data / "red").rename(data / '<img src=x onerror="alert(1)">')
    _ok(run("evaluate", bundle, "--data", data, "--out", tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_without_matplotlib_the_report_says_so(
    run: Run, bundle: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda name: None)
    result = _ok(run("evaluate", bundle, "--data", parts, "--out", tmp_path / "out"))
    assert "pip install 'lookalike[evaluate]'" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES[3:]
    assert "matplotlib is not installed" in (tmp_path / "out" / "report.html").read_text()


def test_unreadable_images_are_skipped_and_counted(run: Run, bundle: Path, tmp_path: Path) -> None:
    class_folders(tmp_path / "train", 5)
    class_folders(tmp_path / "val", 2, seed=1)
    (tmp_path / "train" / "red" / "broken.jpg").write_bytes(b"no picture")
    options = ("--data", tmp_path, "--out", tmp_path / "out", "--json")
    (record,) = objects(_ok(run("evaluate", bundle, *options)))
    assert record["database"]["skipped"] == 1
    assert record["database"]["first_skipped"][0]["path"].endswith("broken.jpg")
    assert "broken.jpg" in (tmp_path / "out" / "report.html").read_text()


def _refused(result: Result, code: Exit, *parts: str) -> None:
    assert result.exit_code == code, result.stderr
    for part in parts:
        assert part in result.stderr


def test_a_k_larger_than_the_database_is_refused_before_the_network_runs(
    run: Run, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    options = ("--k", "61", "--out", tmp_path / "out")
    result = run("evaluate", bundle, "--data", parts, *options)
    _refused(result, Exit.USAGE, "k is 61, and the database has 60 images.", "--k from 1 to 60")
    assert not (tmp_path / "out").exists()
    assert "image/s" not in result.stderr


def test_one_class_alone_is_refused(run: Run, bundle: Path, tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 5, classes=1)
    _refused(run("evaluate", bundle, "--data", data), Exit.FAILED, "two classes")


def test_queries_of_a_class_that_the_database_lacks_are_refused(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    class_folders(tmp_path / "train", 3, classes=2)
    class_folders(tmp_path / "test", 1)
    result = run("evaluate", bundle, "--data", tmp_path)
    _refused(result, Exit.USAGE, "no image of the class 'red'", "take its queries out")


def test_a_class_that_cannot_be_read_is_refused(run: Run, bundle: Path, tmp_path: Path) -> None:
    class_folders(tmp_path / "train", 2)
    class_folders(tmp_path / "test", 1)
    for path in (tmp_path / "train" / "red").iterdir():
        path.write_bytes(b"no picture")
    result = run("evaluate", bundle, "--data", tmp_path)
    _refused(result, Exit.USAGE, "None of the images of the class 'red'", "Repair the images")


@pytest.mark.parametrize("sample", [0, 28])
def test_too_many_queries_are_refused(run: Run, bundle: Path, tmp_path: Path, sample: int) -> None:
    data = class_folders(tmp_path / "data", 10)
    result = run("evaluate", bundle, "--data", data, "--sample", sample)
    _refused(result, Exit.USAGE, "--sample from 1 to 27")


def test_a_report_that_cannot_be_written_is_refused_before_the_network_runs(
    run: Run, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run("evaluate", bundle, "--data", parts, "--out", tmp_path / "file" / "out")
    _refused(result, Exit.FAILED, "cannot be written", "Choose another --out")
    assert "image/s" not in result.stderr


def test_a_folder_of_other_files_is_no_place_for_a_report(
    run: Run, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "report.html").write_text("mine")
    result = run("evaluate", bundle, "--data", parts, "--out", tmp_path)
    _refused(result, Exit.UNAVAILABLE, f"Error: {tmp_path} holds files", "Choose another --out")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    (tmp_path / "report.json").write_text("{}")
    _ok(run("evaluate", bundle, "--data", parts, "--out", tmp_path))
    assert (tmp_path / "report.html").read_text() != "mine"


def test_where_nothing_can_be_read_that_is_told(run: Run, bundle: Path, tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 1)
    for path in sorted(data.rglob("*.*")):
        path.write_bytes(b"no picture")
    result = run("evaluate", bundle, "--data", data)
    _refused(result, Exit.FAILED, f"no image of {data} can be read; the first: {data}")


def test_classes_of_one_image_leave_nothing_to_search_for(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    data = class_folders(tmp_path / "data", 1)
    for more in ((), ("--sample", "3")):
        result = run("evaluate", bundle, "--data", data, *more)
        _refused(result, Exit.USAGE, "has one image only", "--queries")
        assert "to 0" not in result.stderr


def test_a_bundle_without_codes_is_refused(
    run: Run, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in bundle.iterdir():
        (bare / path.name).write_bytes(path.read_bytes())
    description = (bare / "bundle.toml").read_text()
    description = re.sub(r"\nbits = \d+", "\nbits = 0", description)
    description = re.sub(r'\nlatent = "\w+"', '\nlatent = ""', description)
    (bare / "bundle.toml").write_text(description)
    result = run("evaluate", bare, "--data", parts)
    assert result.exit_code != 0
    assert "no code" in result.stderr
