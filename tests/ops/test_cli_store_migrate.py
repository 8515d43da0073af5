"""``lookalike store migrate`` on collections of format 1."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ops.cli.exits import Exit
from tests.ops.conftest import ROOT, Run, objects

FIXTURE = ROOT / "tests" / "store" / "fixtures" / "format-1-20-bits"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A data directory of two shards of format 1."""
    for index in range(2):
        shutil.copytree(FIXTURE, tmp_path / "data" / "shards" / f"{index}-of-2")
    return tmp_path / "data"


def test_every_shard_is_migrated_once(run: Run, old: Path) -> None:
    result = run("store", "stats", "--data-dir", old)
    assert result.exit_code == Exit.UNAVAILABLE
    assert "`lookalike store migrate`" in result.stderr

    first = objects(run("store", "migrate", "--data-dir", old, "--json"))
    assert [(each["migrated"], each["images"]) for each in first] == [(True, 29)] * 2
    second = run("store", "migrate", "--data-dir", old)
    assert second.exit_code == Exit.DONE
    assert second.stdout.count("in the format in use already") == 2
    assert run("store", "check", "--data-dir", old).exit_code == Exit.DONE


def test_the_old_shards_are_kept_on_request(run: Run, old: Path) -> None:
    result = run("store", "migrate", "--keep", "--data-dir", old)
    assert result.exit_code == Exit.DONE
    assert (old / "shards" / "format-1" / "1-of-2" / "data.mdb").exists()
    assert f"kept in {old / 'shards' / 'format-1' / '0-of-2'}" in result.stdout
    assert len(objects(run("store", "stats", "--data-dir", old, "--json"))) == 2


def test_damage_is_named_and_can_be_left_out(run: Run, old: Path) -> None:
    path = old / "shards" / "0-of-2" / "data.mdb"
    path.write_bytes(path.read_bytes().replace(b"/photos/17.jpg", b"/photos/18.jpg"))

    refused = run("store", "migrate", "--data-dir", old)
    assert refused.exit_code == Exit.UNAVAILABLE
    assert "record of row 17 cannot be read" in refused.stderr

    done = run("store", "migrate", "--skip-damaged", "--data-dir", old)
    assert done.exit_code == Exit.FAILED
    assert "left out: the record of row 17 cannot be read" in done.stdout
    stats = objects(run("store", "stats", "--data-dir", old, "--json"))
    assert [each["images"] for each in stats] == [28, 29]


def test_there_must_be_a_collection(run: Run, tmp_path: Path) -> None:
    assert run("store", "migrate", "--data-dir", tmp_path).exit_code == Exit.NOT_FOUND
