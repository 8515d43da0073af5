"""The in-memory broker: everything arrives once, and nobody sleeps through it."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import ClassVar

import pytest
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.message import Message

from workers import transport

PATIENCE_S = 60.0


@pytest.fixture
def queue() -> Iterator[Queue]:
    """A queue of our own: those in memory belong to the process."""
    name = f"test-{time.monotonic_ns()}"
    made = Queue(name, Exchange(name, type="direct", durable=True), routing_key=name)
    yield made
    with connection() as opened, opened.channel() as channel:
        channel.queue_delete(name)


@contextmanager
def connection() -> Iterator[Connection]:
    with Connection("memory://localhost//", transport="workers.transport:Transport") as opened:
        yield opened


def send(queue: Queue, *bodies: int) -> None:
    with connection() as opened:
        producer = opened.Producer()
        for body in bodies:
            producer.publish(
                {"n": body},
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                declare=[queue],
                serializer="json",
            )


class Taker(threading.Thread):
    """Takes messages until it is told to stop."""

    given_back: ClassVar[set[int]] = set()

    def __init__(self, queue: Queue, *, prefetch: int = 0, reject_every: int = 0) -> None:
        super().__init__()
        self.queue = queue
        self.prefetch = prefetch
        self.reject_every = reject_every
        self.taken: list[int] = []
        self.ready = threading.Event()
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        with connection() as opened, opened.Consumer([self.queue], callbacks=[self.take]) as taker:
            taker.qos(prefetch_count=self.prefetch)
            self.ready.set()
            while not self.over.is_set():
                with suppress(TimeoutError):
                    opened.drain_events(timeout=1.0)

    def take(self, body: dict[str, int], message: Message) -> None:
        if self.reject_every and body["n"] % self.reject_every == 0 and not self.rejected(body):
            message.requeue()
            return
        self.taken.append(body["n"])
        message.ack()

    def rejected(self, body: dict[str, int]) -> bool:
        """Return whether a message was given back before, and note that it was."""
        seen = body["n"] in self.given_back
        self.given_back.add(body["n"])
        return seen


@contextmanager
def takers(queue: Queue, count: int, **given: int) -> Iterator[list[Taker]]:
    running = [Taker(queue, **given) for _ in range(count)]
    try:
        for taker in running:
            assert taker.ready.wait(PATIENCE_S)
        yield running
    finally:
        for taker in running:
            taker.over.set()
        for taker in running:
            taker.join()


def eventually_all(running: list[Taker], expected: range) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while sum(len(taker.taken) for taker in running) < len(expected):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    taken = Counter(number for taker in running for number in taker.taken)
    assert taken == Counter(expected)


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_nothing_is_lost_or_doubled_among_many_threads(queue: Queue, prefetch: int) -> None:
    numbers = range(200)
    with takers(queue, 4, prefetch=prefetch) as running, ExitStack() as stack:
        for part in range(4):
            thread = threading.Thread(target=send, args=(queue, *numbers[part::4]))
            stack.callback(thread.join)
            thread.start()
        eventually_all(running, numbers)


def test_messages_that_were_there_before_are_taken(queue: Queue) -> None:
    send(queue, *range(20))
    with takers(queue, 2) as running:
        eventually_all(running, range(20))


def test_a_message_that_is_given_back_goes_to_somebody(queue: Queue) -> None:
    Taker.given_back.clear()
    with takers(queue, 3, reject_every=3, prefetch=1) as running:
        send(queue, *range(60))
        eventually_all(running, range(60))


def test_a_waiting_thread_is_woken_and_does_not_look_by_itself(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wait far beyond our patience only the bell can bring the message."""
    monkeypatch.setattr(transport, "_LONGEST_WAIT_S", 1_000.0)
    taken: list[int] = []
    waiting = threading.Event()

    def take() -> None:
        with connection() as opened:
            callbacks = [lambda body, message: (taken.append(body["n"]), message.ack())]
            with opened.Consumer([queue], callbacks=callbacks):
                waiting.set()
                opened.drain_events(timeout=900.0)

    thread = threading.Thread(target=take)
    thread.start()
    assert waiting.wait(PATIENCE_S)
    for _ in range(100):  # until it surely waits, and not only just before
        if any("wait_beyond" in frame for frame in names_of_frames(thread)):
            break
        time.sleep(0.02)
    send(queue, 7)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert taken == [7]


def names_of_frames(thread: threading.Thread) -> list[str]:
    frame = sys._current_frames().get(thread.ident or 0)
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


@pytest.mark.parametrize("timeout_s", [0.0, 0.01, 5.0, None])
def test_nothing_to_take_is_a_timeout(queue: Queue, timeout_s: float | None) -> None:
    with connection() as opened, opened.Consumer([queue]), pytest.raises(TimeoutError):
        opened.drain_events(timeout=timeout_s)


def test_the_same_message_goes_to_every_queue_that_is_bound(queue: Queue) -> None:
    second = Queue(queue.name + "-2", queue.exchange, routing_key=queue.routing_key)
    with takers(queue, 1) as first, takers(second, 1) as other:
        send(queue, *range(10))
        eventually_all(first, range(10))
        eventually_all(other, range(10))
    with connection() as opened, opened.channel() as channel:
        channel.queue_delete(second.name)
