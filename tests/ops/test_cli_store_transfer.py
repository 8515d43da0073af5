"""``lookalike store export`` and ``import``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ops.cli.exits import Exit
from tests.ops.conftest import Run, objects


@pytest.mark.parametrize("options", [(), ("--stored",)], ids=str)
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_a_collection_is_imported_into_another_data_directory(
    run: Run, collection: Path, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    file, other = tmp_path / f"all.{kind}", tmp_path / "other"
    args = ["export", file, *options, "--data-dir", collection, "--json"]
    (exported,) = objects(run("store", *args))
    assert exported["images"] == 6
    first = run("store", "import", file, "--data-dir", other)
    assert first.exit_code == Exit.DONE, first.stderr
    assert "6 images = 6 added + 0 enriched + 0 unchanged + 0 refused" in first.stdout
    (second,) = objects(run("store", "import", file, "--data-dir", other, "--json"))
    assert (second["added"], second["unchanged"]) == (0, 6)
    assert run("store", "check", "--data-dir", other).exit_code == Exit.DONE
    # The store knows its bundle without having been told.
    found = run("images", "--data-dir", other, "--json")
    assert len(objects(found)) == 6


def test_an_import_follows_the_number_of_shards(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    file, other = tmp_path / "all.npz", tmp_path / "other"
    run("store", "export", file, "--data-dir", collection)
    run("store", "import", file, "--data-dir", other, env={"LOOKALIKE_SHARDS": "3"})
    stats = objects(run("store", "stats", "--data-dir", other, "--json"))
    assert len(stats) == 3
    assert sum(each["images"] for each in stats) == 6
    again = run("store", "import", file, "--data-dir", other)
    assert "6 unchanged" in again.stdout


def test_bad_rows_end_the_command_with_1(run: Run, collection: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.npz"
    run("store", "export", file, "--data-dir", collection)
    with np.load(file) as found:
        arrays = dict(found)
    arrays["feature"][2, 0] = np.inf
    np.savez(file, **arrays)
    result = run("store", "import", file, "--data-dir", tmp_path / "other")
    assert result.exit_code == Exit.FAILED
    assert "5 added" in result.stdout
    assert "row 2, image" in result.stdout


def test_what_cannot_be_done_is_told(run: Run, collection: Path, tmp_path: Path) -> None:
    nothing = run("store", "export", tmp_path / "x.npz", "--data-dir", tmp_path / "nothing")
    assert nothing.exit_code == Exit.NOT_FOUND
    missing = run("store", "import", tmp_path / "x.npz", "--data-dir", collection)
    assert missing.exit_code == Exit.NOT_FOUND
    for command in ("export", "import"):
        other = run("store", command, tmp_path / "x.csv", "--data-dir", collection)
        assert other.exit_code == Exit.USAGE
        assert ".npz or .parquet" in other.stderr


def test_an_export_goes_into_a_folder_that_is_there(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    result = run("store", "export", tmp_path / "mde" / "x.npz", "--data-dir", collection)
    assert result.exit_code == Exit.USAGE
    assert f"no folder {tmp_path / 'mde'}; make it" in result.stderr


def test_a_file_that_cannot_be_read_begins_no_collection(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    file = tmp_path / "all.npz"
    run("store", "export", file, "--data-dir", collection)
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    result = run("store", "import", file, "--data-dir", tmp_path / "other")
    assert result.exit_code == Exit.UNAVAILABLE
    assert "cannot be read" in result.stderr
    assert not (tmp_path / "other").exists()
