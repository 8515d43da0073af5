"""The supervisor, on children that do nothing but live and die."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops import supervisor
from ops.errors import ServiceFailedError
from ops.supervisor import MOST_FAILURES, Event, Supervisor

LIVES = (sys.executable, "-c", "import sys; sys.stdin.read()")
DIES = (sys.executable, "-c", "raise SystemExit(7)")


class Witness:
    """Writes events down, and lets a test wait for them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait_for(self, what: str, count: int) -> list[Event]:
        with self._news:
            assert self._news.wait_for(lambda: len(self._of(what)) >= count, 30)
            return self._of(what)

    def _of(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(supervisor, "_LOOK_S", 0.01)


@contextmanager
def supervised(commands: dict[str, Sequence[str]], witness: Witness) -> Iterator[Supervisor]:
    """Run a supervisor in a thread, and stop it at the end."""
    running = Supervisor(commands, env=dict(os.environ), fatal=[2], tell=witness)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join(30)
        assert not thread.is_alive()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_all_children_run_and_end_together() -> None:
    witness = Witness()
    with supervised({"a": LIVES, "b": LIVES}, witness):
        started = witness.wait_for("started", 2)
        assert {event.name for event in started} == {"a", "b"}
        assert all(alive(event.pid) for event in started)
    assert not any(alive(event.pid) for event in started)


def test_a_killed_child_is_replaced_and_the_others_are_left_alone() -> None:
    witness = Witness()
    with supervised({"a": LIVES, "b": LIVES}, witness):
        first, other = witness.wait_for("started", 2)
        os.kill(first.pid, signal.SIGKILL)
        (ended,) = witness.wait_for("ended", 1)
        assert (ended.name, ended.pid, ended.exit_code) == (first.name, first.pid, -9)
        again = witness.wait_for("started", 3)[2]
        assert again.name == first.name
        assert again.pid != first.pid
        assert alive(other.pid)


def test_a_child_that_keeps_dying_is_given_up_after_growing_pauses() -> None:
    witness = Witness()
    running = Supervisor(
        {"good": LIVES, "bad": DIES}, env=dict(os.environ), fatal=[2], tell=witness
    )
    with pytest.raises(ServiceFailedError, match="bad cannot be kept running"):
        running.run()
    ended = [event for event in witness.events if event.what == "ended"]
    pauses = [event.pause_s for event in ended]
    assert [event.exit_code for event in ended] == [7] * MOST_FAILURES
    assert pauses == [supervisor.FIRST_PAUSE_S * 2.0**n for n in range(MOST_FAILURES)]
    assert not any(alive(event.pid) for event in witness.events)


def test_an_exit_code_that_no_restart_mends_ends_everything_at_once() -> None:
    witness = Witness()
    command = (sys.executable, "-c", "raise SystemExit(2)")
    running = Supervisor({"bad": command}, env=dict(os.environ), fatal=[2], tell=witness)
    with pytest.raises(ServiceFailedError, match="ended with 2"):
        running.run()
    assert [event.what for event in witness.events] == ["started", "ended"]


def test_pauses_do_not_grow_beyond_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_S", 0.002)
    witness = Witness()
    running = Supervisor({"bad": DIES}, env=dict(os.environ), fatal=[2], tell=witness)
    with pytest.raises(ServiceFailedError):
        running.run()
    assert {event.pause_s for event in witness.events[-4:] if event.pause_s} == {0.002}


def test_a_child_that_lived_long_counts_from_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SETTLED_S", 0.0)
    witness = Witness()
    with supervised({"bad": DIES}, witness):
        ended = witness.wait_for("ended", MOST_FAILURES + 2)
    assert {event.pause_s for event in ended} == {supervisor.FIRST_PAUSE_S}
