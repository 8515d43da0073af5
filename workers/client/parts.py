"""What all calls of a client have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from workers.dispatch import Dispatcher
from workers.errors import InvalidRequest, NotFound
from workers.resources import Resources

LABEL_CHARS = 200

_FIRST_PAUSE_S = 0.002
_LAST_PAUSE_S = 0.1


class Parts:
    """The parts of a process that calls work with.

    Args:
        resources: Ledger, files and shards.
        dispatcher: The way to the queues.
        trusted: Whether any folder may be ingested, as from the command line; otherwise only
            those below the setting ``folder_roots``.
    """

    def __init__(self, resources: Resources, dispatcher: Dispatcher, *, trusted: bool) -> None:
        self.settings = resources.settings
        self._resources = resources
        self._ledger = resources.ledger
        self._files = resources.files
        self._dispatcher = dispatcher
        self._trusted = trusted


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Check that a number is from ``low`` to ``high``.

    Raises:
        InvalidRequest: It is not.
    """
    if not low <= value <= high:
        raise InvalidRequest(
            f"{name} is {value}.", remedy=f"It must be from {low} to {high:,}.", code=f"bad_{name}"
        )


def wait_while(unfinished: Callable[[], bool], timeout_s: float) -> None:
    """Ask again and again, more and more slowly: most searches are over in a blink."""
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while unfinished() and (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.1, _LAST_PAUSE_S)


def existing(path: Path, what: str) -> Path:
    """Return a path if there is a file.

    Raises:
        NotFound: There is none.
    """
    if not path.is_file():
        raise NotFound(
            f"There is no {what}.", remedy="It goes with its image or its result; search again."
        )
    return path
