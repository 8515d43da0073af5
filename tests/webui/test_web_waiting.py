"""Long polls: bounded in number and time, and over at shutdown."""

from __future__ import annotations

import threading
import time

from webui.waiting import LongPolls

LONG_S = 60.0


class Thing:
    """Something that is finished when it is told so."""

    def __init__(self) -> None:
        self.finished = threading.Event()
        self.asked = threading.Event()

    def ask(self, seconds: float) -> bool:
        self.asked.set()
        return self.finished.wait(seconds)


def wait_in_thread(polls: LongPolls, thing: Thing) -> tuple[threading.Thread, list[bool]]:
    answers: list[bool] = []
    thread = threading.Thread(
        target=lambda: answers.append(polls.wait(thing.ask, done=bool, seconds=LONG_S))
    )
    thread.start()
    assert thing.asked.wait(LONG_S)
    return thread, answers


def test_a_long_poll_ends_when_the_thing_is_finished() -> None:
    thing = Thing()
    thread, answers = wait_in_thread(LongPolls(most=1), thing)
    thing.finished.set()
    thread.join(LONG_S / 2)
    assert answers == [True]


def test_a_long_poll_ends_when_its_time_is_over() -> None:
    begin = time.monotonic()
    assert LongPolls(most=1).wait(Thing().ask, done=bool, seconds=0.7) is False
    assert 0.7 <= time.monotonic() - begin < LONG_S


def test_a_long_poll_ends_when_the_server_stops() -> None:
    polls, thing = LongPolls(most=1), Thing()
    thread, answers = wait_in_thread(polls, thing)
    polls.stop()
    thread.join(LONG_S / 2)
    assert answers == [False]


def test_past_the_bound_the_state_is_told_at_once_and_a_free_place_is_used_again() -> None:
    polls, first, second = LongPolls(most=1), Thing(), Thing()
    thread, answers = wait_in_thread(polls, first)
    begin = time.monotonic()
    assert polls.wait(second.ask, done=bool, seconds=LONG_S) is False
    assert time.monotonic() - begin < LONG_S / 2
    first.finished.set()
    thread.join(LONG_S / 2)
    other, later = wait_in_thread(polls, Thing())
    polls.stop()
    other.join(LONG_S / 2)
    assert (answers, later) == ([True], [False])


def test_no_time_means_no_waiting() -> None:
    asked: list[float] = []
    LongPolls(most=1).wait(asked.append, done=bool, seconds=0)
    assert asked == [0]
