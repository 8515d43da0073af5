"""The doctor finds what is wrong, and only that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ops.cli.exits import Exit
from ops.doctor import CHECKS
from ops.lock import ServerLock
from tests.ops.conftest import Run, objects


def findings(run: Run, data_dir: Path, *options: object) -> tuple[int, dict[str, dict[str, Any]]]:
    result = run("doctor", "--data-dir", data_dir, "--json", *options)
    return result.exit_code, {found["name"]: found for found in objects(result)}


def test_a_good_collection_passes_every_check(run: Run, collection: Path) -> None:
    code, found = findings(run, collection)
    assert code == Exit.DONE
    assert list(found) == [check.__name__ for check in CHECKS]
    assert {name for name, each in found.items() if each["state"] == "fail"} == set()
    assert "6 images" in found["store"]["message"]


def test_a_bundle_that_does_not_fit_the_store_is_found(run: Run, collection: Path) -> None:
    code, found = findings(run, collection, "--bundle", "lite0-20")
    assert code == Exit.FAILED
    assert [name for name, each in found.items() if each["state"] == "fail"] == ["store"]
    assert "--bundle" in found["store"]["remedy"]


def test_a_number_of_shards_that_does_not_fit_the_store_is_found(
    run: Run, collection: Path
) -> None:
    env = {"LOOKALIKE_SHARDS": "2"}
    result = run("doctor", "--data-dir", collection, "--json", env=env)
    assert result.exit_code == Exit.FAILED
    (failed,) = [found for found in objects(result) if found["state"] == "fail"]
    assert failed["name"] == "store"
    assert "LOOKALIKE_SHARDS=1" in failed["remedy"]


def test_a_broker_that_is_down_is_named_without_its_password(run: Run, tmp_path: Path) -> None:
    url = "amqp://me:secret@127.0.0.1:1//"
    code, found = findings(run, tmp_path, "--broker-url", url)
    assert code == Exit.FAILED
    assert found["broker"]["state"] == "fail"
    assert "127.0.0.1:1" in found["broker"]["message"]
    assert "secret" not in str(found)


def test_a_ledger_that_is_down_is_found(run: Run, tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/none"
    code, found = findings(run, tmp_path, "--ledger-url", url)
    assert code == Exit.FAILED
    assert found["ledger"]["state"] == "fail"
    assert "secret" not in str(found)


def test_a_data_directory_that_cannot_be_written_is_found(run: Run) -> None:
    code, found = findings(run, Path("/proc/nowhere"))
    assert code == Exit.FAILED
    assert found["data_dir"]["state"] == "fail"
    assert "--data-dir" in found["data_dir"]["remedy"]


def test_a_running_server_is_told_of(run: Run, tmp_path: Path) -> None:
    with ServerLock(tmp_path) as lock:
        lock.announce("http://127.0.0.1:1234/")
        _, found = findings(run, tmp_path)
    assert "http://127.0.0.1:1234/" in found["server"]["message"]
    _, found = findings(run, tmp_path)
    assert "none" in found["server"]["message"]
