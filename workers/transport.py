"""kombu's in-memory transport with a doorbell: whoever waits wakes when a message comes.

The original looks into its queues, sleeps, and looks again. With many waiting threads that is
either slow to answer or busy for nothing.
"""

from __future__ import annotations

import threading
import time
from queue import Empty
from typing import Any

from kombu.transport import memory

# A wait is at most this long, so that a thread that is told to stop notices soon.
_LONGEST_WAIT_S = 0.2


class _Bell:
    """Counts arrivals, and lets threads wait for the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.rings = 0

    def ring(self) -> None:
        with self._condition:
            self.rings += 1
            self._condition.notify_all()

    def wait_beyond(self, heard: int, timeout_s: float) -> bool:
        """Wait for a ring after the first ``heard``; return whether there was one."""
        with self._condition:
            return self._condition.wait_for(lambda: self.rings > heard, timeout_s)


# The in-memory queues belong to the process, and so does their bell.
_bell = _Bell()


class Channel(memory.Channel):
    """A channel that rings when a message is put into a queue."""

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        super()._put(queue, message, **kwargs)
        _bell.ring()


class Transport(memory.Transport):
    """The transport to name in ``broker_transport``."""

    Channel = Channel

    def drain_events(self, _connection: Any, timeout: float | None = None) -> None:  # type: ignore[override]
        """Deliver one message, waiting a moment for it if need be.

        Raises:
            TimeoutError: None came; whoever is still waiting asks again.
        """
        wait_s = _LONGEST_WAIT_S if timeout is None else min(timeout, _LONGEST_WAIT_S)
        deadline = time.monotonic() + wait_s
        while True:
            heard = _bell.rings
            try:
                self.cycle.get(self._deliver, timeout=timeout)  # type: ignore[union-attr]
            except Empty:
                if not _bell.wait_beyond(heard, deadline - time.monotonic()):
                    raise TimeoutError from None
            else:
                return
