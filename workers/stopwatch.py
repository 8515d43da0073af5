"""Times of the stages of one piece of work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Adds up how long each stage took, in milliseconds."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as time of a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent_ms = (time.perf_counter() - begin) * 1000
            self.timings_ms[name] = round(self.timings_ms.get(name, 0.0) + spent_ms, 3)

    def waiting(self, name: str, entries: Iterable[T]) -> Iterator[T]:
        """Yield entries, and count the time until each is there as time of a stage."""
        ahead = iter(entries)
        while True:
            with self.stage(name):
                entry = next(ahead, None)
            if entry is None:
                return
            yield entry
