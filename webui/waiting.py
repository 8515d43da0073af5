"""Long polls: answers that wait a while for the thing they are about to be finished."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_SLICE_S = 0.5


class LongPolls:
    """Bounds how many requests may wait at once, and lets all of them go at shutdown.

    A waiting request holds a thread of the server. Past the bound a request is answered at once
    with the state as it is, so that a crowd of open pages cannot keep others from being served.
    """

    def __init__(self, *, most: int) -> None:
        self._slots = threading.BoundedSemaphore(max(most, 1))
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Answer whoever waits, and let nobody wait any more."""
        self._stopping.set()

    def wait(self, ask: Callable[[float], T], *, done: Callable[[T], bool], seconds: float) -> T:
        """Return what ``ask`` gives once it is ``done``, or as it is after ``seconds``.

        Args:
            ask: Takes seconds, and returns the state when it is done or that time is over.
            done: Whether there is nothing more to wait for.
            seconds: Longest wait.
        """
        if seconds <= 0 or not self._slots.acquire(blocking=False):
            return ask(0)
        try:
            return self._wait(ask, done, time.monotonic() + seconds)
        finally:
            self._slots.release()

    def _wait(self, ask: Callable[[float], T], done: Callable[[T], bool], end: float) -> T:
        # In slices, because whoever waits inside the client does not hear of the shutdown.
        while True:
            left_s = max(end - time.monotonic(), 0)
            state = ask(min(left_s, _SLICE_S))
            if done(state) or left_s <= _SLICE_S or self._stopping.is_set():
                return state
