"""Parts of a process are opened on first use, once, and closed with it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workers.errors import Unavailable
from workers.resources import Resources
from workers.settings import Settings


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Resources(Settings(data_dir=data_dir, cache_dir=tmp_path / "cache")):
        assert list(tmp_path.iterdir()) == []


def test_threads_share_one_of_everything(tmp_path: Path) -> None:
    gate = threading.Barrier(4)

    def take(resources: Resources) -> tuple[object, object, object]:
        gate.wait()
        return resources.ledger, resources.robots, resources.fetcher

    with Resources(Settings(data_dir=tmp_path)) as resources, ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(take, [resources] * 4))
    assert all(each == taken[0] for each in taken)  # none of them compares by value


def test_closing_may_be_done_twice(tmp_path: Path) -> None:
    resources = Resources(Settings(data_dir=tmp_path))
    assert resources.ledger.jobs.open_ids() == []
    resources.close()
    resources.close()


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, cache_dir=tmp_path, bundle="no-such-bundle")
    with Resources(settings) as resources, pytest.raises(Unavailable) as caught:
        resources.bundle  # noqa: B018 - looking is what opens it
    assert caught.value.code == "bundle"
    assert "no-such-bundle" in caught.value.message
