"""``lookalike store backup`` and ``restore``."""

from __future__ import annotations

from pathlib import Path

from ops.cli.exits import Exit
from tests.ops.conftest import Run, objects


def test_a_collection_is_restored_into_another_data_directory(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    (first,) = objects(run("store", "backup", tmp_path / "b", "--data-dir", collection, "--json"))
    assert first["images"] == 6
    assert first["copied_files"] == first["files"] == 2
    again = run("store", "backup", tmp_path / "b", "--verify", "--data-dir", collection)
    assert again.exit_code == Exit.DONE
    assert "0 bytes in 0 files are new" in again.stdout

    other = tmp_path / "other"
    result = run("store", "restore", tmp_path / "b", "--data-dir", other)
    assert result.exit_code == Exit.DONE, result.stderr
    assert "6 images" in result.stdout
    (stats,) = objects(run("store", "stats", "--data-dir", other, "--json"))
    assert stats["images"] == 6
    assert run("store", "check", "--data-dir", other).exit_code == Exit.DONE


def test_a_collection_is_replaced_with_force_only(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    args = ["restore", tmp_path / "b", "--data-dir", tmp_path / "other", "--json"]
    run("store", "backup", tmp_path / "b", "--data-dir", collection)
    run("store", *args)
    refused = run("store", *args)
    assert refused.exit_code == Exit.UNAVAILABLE
    assert "--force" in objects(refused)[0]["error"]["remedy"]
    (restored,) = objects(run("store", *args, "--force"))
    assert restored["images"] == 6


def test_what_is_no_backup_and_no_collection_is_told(run: Run, tmp_path: Path) -> None:
    backup = run("store", "backup", tmp_path / "b", "--data-dir", tmp_path / "nothing")
    assert backup.exit_code == Exit.NOT_FOUND
    restore = run("store", "restore", tmp_path, "--data-dir", tmp_path / "data")
    assert restore.exit_code == Exit.UNAVAILABLE
    assert "no backup" in restore.stderr
    missing = run("store", "restore", tmp_path / "no", "--data-dir", tmp_path / "new")
    assert missing.exit_code == Exit.NOT_FOUND
    assert not (tmp_path / "new").exists()


def test_a_backup_goes_into_a_folder_that_is_there(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    result = run("store", "backup", tmp_path / "mnt" / "b", "--data-dir", collection)
    assert result.exit_code == Exit.USAGE
    assert f"no folder {tmp_path / 'mnt'}; make it" in result.stderr
    assert list(tmp_path.iterdir()) == []
