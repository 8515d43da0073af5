"""Processes that are forked off, say what they do through a pipe, and are killed."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import NoReturn

from ops.drill import tracing
from ops.errors import OpsError

Tell = Callable[[bytes], object]
"""Called by the child with bytes for its parent."""

LIMIT_S = 120
"""A process that takes longer is stuck."""

_FAILED = b"!"
_SPIN_S = 0.002

_LONGER, _SHORTER = 1.05, 0.8
"""How a pace changes with each process: about one in five is to reach its end."""


class Violation(OpsError):
    """A store is not what it must be; the message says in what."""


@dataclass
class Pace:
    """How long the processes of a drill live, as learned from those that were not killed.

    Attributes:
        seconds: About how long one works.
        stops: About how many system calls it enters and leaves.
        traced: Whether processes may be traced.
    """

    seconds: float = 0.05
    stops: float = 500
    traced: bool = False

    def moment(self, chance: Random) -> float:
        """Draw a moment: half of them spread evenly, half of them evenly over magnitudes."""
        if chance.random() < 0.5:
            return chance.random() * self.seconds
        return float(self.seconds * 10 ** (-4 * chance.random()))


class Child:
    """A forked process.

    Args:
        work: What it does.
        traced: Whether it is to be killed at a system call.
    """

    def __init__(self, work: Callable[[Tell], None], *, traced: bool = False) -> None:
        self._reading, sending = os.pipe()
        self._status: int | None = None
        self._heard = b""
        self.traced = traced
        self._pid = os.fork()
        if self._pid == 0:
            _live(work, sending, traced=traced)
        os.close(sending)

    def hear(self) -> bytes:
        """Wait for one byte; none where it has ended."""
        self._heard += os.read(self._reading, 1)
        return self._heard[-1:]

    def kill(self, pace: Pace, chance: Random) -> bool:
        """Kill it when chance will have it; tell whether it was still at work."""
        if self.traced:
            wanted = chance.randrange(1, max(int(pace.stops), 2))
            seen, self._status = tracing.run(self._pid, wanted)
            killed = self._status is None
            self._status = signal.SIGKILL if killed else self._status
            pace.stops = pace.stops * _LONGER if killed else (pace.stops + seen) / 2
            return killed
        _pause(pace.moment(chance))
        killed = not os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(self._pid, signal.SIGKILL)
        pace.seconds *= _LONGER if killed else _SHORTER
        return killed

    def stop(self) -> bytes:
        """Ask it to end, and wait for that; see `end`."""
        os.kill(self._pid, signal.SIGTERM)  # if it has ended, its number is still its own
        return self.end()

    def end(self) -> bytes:
        """Wait for its end, and return what it has told.

        Raises:
            Violation: It failed, or was ended by something else than this program.
        """
        told = self._heard
        while some := os.read(self._reading, 1 << 16):
            told += some
        os.close(self._reading)
        if self._status is None:
            self._status = os.waitpid(self._pid, 0)[1]
        if self._status not in (0, signal.SIGKILL):
            raise Violation(_reason(self._status, told))
        return told

    def abandon(self) -> None:
        """Kill it, whatever it is at, if it still is there."""
        if self._status is None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)


def ask_child(work: Callable[[Tell], None]) -> bytes:
    """Have work done in a process of its own; return what it tells.

    Raises:
        Violation: It failed.
    """
    return Child(work).end()


def _live(work: Callable[[Tell], None], sending: int, *, traced: bool) -> NoReturn:
    code = 1
    try:
        signal.alarm(LIMIT_S)
        if traced:
            tracing.ask()
        work(lambda told: os.write(sending, told))
        code = 0
    except BaseException as error:  # noqa: BLE001 - the edge of a process: told to the parent
        said = str(error) if isinstance(error, Violation) else traceback.format_exc()
        os.write(sending, _FAILED + said.encode(errors="replace"))
    finally:
        os._exit(code)


def _pause(seconds: float) -> None:
    """Wait for a time that may be much shorter than what `sleep` takes to return."""
    end = time.perf_counter() + seconds
    if seconds > _SPIN_S:
        time.sleep(seconds - _SPIN_S)
    while time.perf_counter() < end:
        pass


def _reason(status: int, told: bytes) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        stuck = f"it was stuck for {LIMIT_S} s" if number == signal.SIGALRM else "it crashed"
        return f"{stuck}: {signal.strsignal(number)}"
    said = told.partition(_FAILED)[2].decode()
    return said or f"it ended with status {status} and told {told!r}"
