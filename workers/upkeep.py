"""Keeping the shards small and fast in the background: compaction and retraining.

A thread of its own, because a retraining takes minutes and the sweeps of `workers.housekeeping`
must not wait for it. It works as long as it rests, so that it takes at most half a core from
ingest and searches, and the write lock of a shard for a few hundredths of a second at a time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from store import Shard, StoreError
from workers.errors import WorkerError
from workers.learning import learn_for
from workers.resources import Resources

logger = logging.getLogger(__name__)

_LOCK_FILE = "upkeep.lock"
_WORK_S = 0.05


class StoreKeeper:
    """Looks at every shard every so often. Of several in several processes one is at work.

    Args:
        resources: Its shards are looked after.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._stop = threading.Event()
        self._learned: dict[int, int] = {}
        self._rested = 0.0
        self._thread = threading.Thread(target=self._run, name="store keeper", daemon=True)

    def start(self) -> None:
        """Begin in a thread of its own, unless the settings say that nothing is to be done."""
        if self._settings.store_upkeep:
            self._thread.start()

    def close(self) -> None:
        """Stop within a second or so; what is half done is gone on with at the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Do what is due for each shard: compact a segment, retrain the key.

        Raises:
            WorkerError: A shard cannot be opened.
            StoreError: A shard cannot be written.
        """
        with self._alone() as alone:
            if not alone:
                return
            for index in range(self._settings.shards):
                shard = self._resources.shards[index]
                for compacted in shard.compact(most=1):
                    logger.info(
                        "Compacted segment %d of %s: %d bytes freed.",
                        compacted.segment,
                        shard.path,
                        compacted.freed_bytes,
                    )
                self._retrain(index, shard)

    def _retrain(self, index: int, shard: Shard) -> None:
        self._rested = time.monotonic()
        due = shard.retraining_due()
        images = shard.count()
        # What was learned once is not learned again before there is much more to learn from.
        if due and images >= 2 * self._learned.get(index, 0):
            self._learned[index] = images
            centres = learn_for(shard, due, between=self._rest)
            if centres is not None:
                shard.begin_retraining(centres)
                logger.info("Retraining %s: %d centres, %d images.", shard.path, due, images)
        while shard.retrain_step():
            self._rest()

    def _rest(self) -> None:
        """Rest as long as was worked, and end the work when this is closed."""
        worked = time.monotonic() - self._rested
        if worked >= _WORK_S:
            self._stop.wait(worked)
            self._rested = time.monotonic()
        if self._stop.is_set():
            raise _Closed

    def _run(self) -> None:
        while not self._stop.wait(self._settings.sweep_interval_s):
            try:
                self.look()
            except _Closed:
                return
            except (WorkerError, StoreError) as error:
                logger.warning("A shard cannot be looked after, which is tried later: %s", error)
            except Exception:
                logger.exception("Looking after the shards failed and is tried again later.")

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Tell whether no other process looks after the shards; none begins meanwhile."""
        path = self._settings.data_dir / _LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)


class _Closed(Exception):
    """The keeper was closed while it worked."""


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
