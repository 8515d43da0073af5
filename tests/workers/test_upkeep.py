"""The shards are compacted and retrained in the background."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ops.drill.small import small_segments
from store import NewImage, Shard, StoreSpec, retraining
from workers import upkeep
from workers.learning import learn_for
from workers.settings import Settings
from workers.upkeep import StoreKeeper

BITS, DIMS, ROWS, COUNT = 40, 4, 16, 200
PATIENCE_S = 30.0


def image(number: int) -> NewImage:
    rng = np.random.default_rng(number)
    return NewImage(
        id=hashlib.sha256(b"%d" % number).hexdigest()[:32],
        code=rng.integers(0, 256, BITS // 8, np.uint8),
        feature=rng.normal(size=DIMS).astype(np.float32),
        source=f"/{number}.jpg",
        origin=str(number),
        added_at=1e9,
        width_px=1,
        height_px=1,
        format="JPEG",
        size_bytes=1,
    )


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shard]:
    monkeypatch.setattr(retraining, "FEWEST_CENTRES", 8)
    monkeypatch.setattr(upkeep, "_WORK_S", 0.0)
    spec = StoreSpec(bundle_id="tiny@0", bits=BITS, dims=DIMS, metric="cosine")
    with small_segments(ROWS), Shard.open(tmp_path / "shard", spec) as shard:
        shard.insert([image(number) for number in range(COUNT)])
        yield shard


@pytest.fixture
def keeper(shard: Shard, tmp_path: Path) -> Callable[..., StoreKeeper]:
    def make(**changes: Any) -> StoreKeeper:
        settings = replace(Settings(data_dir=tmp_path, sweep_interval_s=0.01), **changes)
        return StoreKeeper(SimpleNamespace(settings=settings, shards=[shard]))  # type: ignore[arg-type]

    return make


def test_one_segment_is_compacted_at_each_look(
    shard: Shard, keeper: Callable[..., StoreKeeper]
) -> None:
    shard.delete([image(number).id for number in range(2 * ROWS) if number % 2])
    for left in (ROWS // 2, 0, 0):
        keeper().look()
        assert shard.stats().dead_slots == left
    assert shard.check().problems == ()


def test_a_shard_that_is_due_is_retrained_once(
    shard: Shard, keeper: Callable[..., StoreKeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = keeper()
    one.look()
    assert shard.stats().generation == 0
    monkeypatch.setattr(retraining, "_FIXED_UP_TO", 100)
    one.look()
    one.look()
    assert (shard.stats().generation, shard.stats().centres) == (1, 8)
    assert shard.retraining() is None
    assert shard.check().problems == ()


def test_a_retraining_that_was_cut_off_goes_on(
    shard: Shard, keeper: Callable[..., StoreKeeper]
) -> None:
    shard.begin_retraining(np.arange(20, dtype=np.uint8).reshape(4, 5))
    shard.retrain_step(10)
    keeper().look()
    assert shard.stats().centres == 4
    assert shard.retraining() is None


def test_it_works_in_a_thread_and_ends_when_it_is_closed(
    shard: Shard, keeper: Callable[..., StoreKeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "_FIXED_UP_TO", 100)
    one = keeper()
    one.start()
    end = time.monotonic() + PATIENCE_S
    while shard.stats().generation == 0 and time.monotonic() < end:
        time.sleep(0.01)
    one.close()
    one.close()
    assert shard.stats().generation == 1


def test_closing_does_not_wait_for_the_learning(
    shard: Shard, keeper: Callable[..., StoreKeeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "_FIXED_UP_TO", 100)
    begun: list[float] = []

    def learn(*_: Any, between: Callable[[], None]) -> None:
        begun.append(time.monotonic())
        while True:
            between()

    monkeypatch.setattr(upkeep, "learn_for", learn)
    one = keeper()
    one.start()
    end = time.monotonic() + PATIENCE_S
    while not begun and time.monotonic() < end:
        time.sleep(0.01)
    one.close()
    assert begun
    assert shard.stats().generation == 0


def test_nothing_is_done_where_the_setting_says_so(
    shard: Shard, keeper: Callable[..., StoreKeeper]
) -> None:
    shard.delete([image(number).id for number in range(ROWS)])
    one = keeper(store_upkeep=False)
    one.start()
    time.sleep(0.05)
    one.close()
    assert shard.stats().dead_slots == ROWS


def test_of_two_processes_one_is_at_work(
    shard: Shard, keeper: Callable[..., StoreKeeper], tmp_path: Path
) -> None:
    shard.delete([image(number).id for number in range(ROWS)])
    with (tmp_path / "upkeep.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        keeper().look()
    assert shard.stats().dead_slots == ROWS
    keeper().look()
    assert shard.stats().dead_slots == 0


def test_few_different_codes_give_few_centres(tmp_path: Path) -> None:
    spec = StoreSpec(bundle_id="tiny@0", bits=BITS, dims=DIMS, metric="cosine")
    with Shard.open(tmp_path, spec) as shard:
        assert learn_for(shard, 8) is None
        one, other = image(1).code, image(2).code
        alike = [replace(image(i), code=one if i % 2 else other) for i in range(20)]
        shard.insert(alike)
        centres = learn_for(shard, 8)
        assert centres is not None
        assert centres.shape == (1, BITS // 8)
