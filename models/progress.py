"""Progress of long work: a bar on a terminal, and a line every few seconds in a log."""

import sys
from typing import Any, TextIO

from tqdm import tqdm

_LINE_EVERY_S = 5.0


def progress(*, total: int, title: str, begin: int = 0, unit: str = "image") -> Any:
    """Return a context manager with `update(count)` that shows rate and time left.

    Args:
        total: How many there are.
        title: What is being done.
        begin: How many were done by an earlier run.
        unit: What is counted.
    """
    how: dict[str, Any] = {}
    if not sys.stderr.isatty():
        how = {"file": _Lines(sys.stderr), "mininterval": _LINE_EVERY_S}
    return _Bar(total=total, desc=title, initial=begin, unit=unit, **how)


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    monitor_interval = 0  # no thread that redraws: every update does


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
