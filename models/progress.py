"""Progress of long work: a bar on a terminal, and a line every few seconds in a log."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

_LINE_EVERY_S = 5.0
_SILENT_S = 1.0


def progress(*, total: int, title: str, begin: int = 0, unit: str = "image") -> Any:
    """Return a context manager with `update(count)` that shows rate and time left.

    In a log the last line tells of all that was done; what took less than a second is not told.

    Args:
        total: How many there are.
        title: What is being done.
        begin: How many were done by an earlier run.
        unit: What is counted.
    """
    how: dict[str, Any] = {}
    if not sys.stderr.isatty():
        how = {
            "file": _Lines(sys.stderr),
            "mininterval": _LINE_EVERY_S,
            "delay": _SILENT_S,
            "miniters": 1,  # no guess after how many images five seconds will have passed
        }
    return _Bar(total=total, desc=title, initial=begin, unit=unit, **how)


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    monitor_interval = 0  # no thread that redraws: every update does

    def close(self) -> None:
        # tqdm is silent at the end when it was silent before.
        if not self.disable and self.delay and time.time() - self.start_t >= self.delay:
            self.last_print_t = time.time()
        super().close()


class _Lines:
    """A stream that turns what is written over and over at one place into lines."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()
