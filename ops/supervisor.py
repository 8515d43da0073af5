"""Keeping child processes running: the dead are replaced, and all end together."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ops.errors import ServiceFailedError

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
MOST_FAILURES = 6
"""Deaths in a row, each soon after the start, before the supervisor gives up."""

SETTLED_S = 60.0
"""A child that lived this long has started well, and its next death counts from one again."""

_LOOK_S = 0.2


@dataclass(frozen=True)
class Event:
    """Something that happened to a child.

    Attributes:
        what: ``started`` or ``ended``.
        exit_code: Of an ended one; below 0 it is the signal that killed it.
        pause_s: Until an ended one is started again.
    """

    what: str
    name: str
    pid: int
    exit_code: int | None = None
    pause_s: float | None = None


class _Child:
    """One place that is always to be filled with a running process."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self.failures = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at = 0.0
        self._command = command
        self._env = env
        self._started_at = 0.0

    def start(self) -> int:
        # Its standard input ends when this process does, whatever ends it: that is how the child
        # learns of it. In a group of its own, Ctrl-C reaches it through the supervisor alone.
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            self._command, stdin=subprocess.PIPE, env=self._env, process_group=0
        )
        self._started_at = time.monotonic()
        return self.process.pid

    def bury(self, code: int) -> float:
        """Note a death and return the pause before the next start."""
        process, self.process = self.process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
        settled = time.monotonic() - self._started_at > SETTLED_S
        self.failures = 1 if settled else self.failures + 1
        pause_s = min(FIRST_PAUSE_S * 2.0 ** (self.failures - 1), LONGEST_PAUSE_S)
        self.start_at = time.monotonic() + (pause_s if code else 0)
        return pause_s


class Supervisor:
    """Runs commands until :meth:`stop` is called.

    A child's standard input is a pipe that ends with the supervisor, also when it is killed; the
    child is to watch it.

    Args:
        commands: Program and arguments by the name that is shown.
        env: Environment of the children.
        fatal: Exit codes after which starting again would be of no use.
        tell: Called with everything that happens.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        env: Mapping[str, str],
        fatal: Sequence[int],
        tell: Callable[[Event], None],
    ) -> None:
        self._children = [_Child(name, command, env) for name, command in commands.items()]
        self._fatal = fatal
        self._tell = tell
        self._stopping = threading.Event()

    def run(self) -> None:
        """Start the children, replace those that end, and end all when asked to stop.

        Raises:
            ServiceFailedError: A child cannot be kept running; the others were ended.
        """
        try:
            while not self._stopping.is_set():
                self._start_due()
                self._stopping.wait(_LOOK_S)
                self._bury_dead()
        finally:
            self._end_all()

    def stop(self) -> None:
        """Ask :meth:`run` to end the children and return; may be called from a signal handler."""
        self._stopping.set()

    def _start_due(self) -> None:
        for child in self._children:
            if child.process is None and time.monotonic() >= child.start_at:
                self._tell(Event("started", child.name, child.start()))

    def _bury_dead(self) -> None:
        for child in self._children:
            process = child.process
            code = None if process is None else process.poll()
            if process is None or code is None or self._stopping.is_set():
                continue
            pause_s = child.bury(code)
            self._tell(Event("ended", child.name, process.pid, code, pause_s))
            if code in self._fatal or child.failures >= MOST_FAILURES:
                raise ServiceFailedError(
                    f"{child.name} cannot be kept running: it ended with {code}, "
                    f"{child.failures} times in a row; what it wrote above says why."
                )

    def _end_all(self) -> None:
        """Ask all to end, and wait for them: each finishes the message it is at."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
