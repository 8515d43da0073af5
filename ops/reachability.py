"""Whether the message broker can be reached, and who takes messages from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.connection import Connection
from kombu.exceptions import OperationalError

from workers.app import QUEUES
from workers.records import Problem
from workers.settings import Settings

_TIMEOUT_S = 5.0


def broker_problem(settings: Settings) -> Problem | None:
    """Return why the broker cannot be reached, or None if it can."""
    try:
        with _connected(settings):
            return None
    except (OperationalError, OSError, ValueError, KeyError) as error:
        return Problem(
            "broker_down",
            f"The message broker at {shown_address(settings)} does not answer: {error}.",
            "Start RabbitMQ, or check LOOKALIKE_BROKER_URL.",
        )


def consumers(settings: Settings) -> dict[str, int]:
    """Return how many workers take messages from each queue; a queue that is not there has none.

    Raises:
        OperationalError: The broker does not answer.
    """
    with _connected(settings) as connection:
        return {queue: _consumers_of(connection, queue) for queue in QUEUES}


def shown_address(settings: Settings) -> str:
    """Return the broker's address without the password."""
    return str(Connection(settings.broker_url).as_uri())


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    with Connection(settings.broker_url, connect_timeout=_TIMEOUT_S) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=_TIMEOUT_S)
        yield connection


def _consumers_of(connection: Connection, queue: str) -> int:
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).consumer_count)
        except connection.channel_errors:  # there is no such queue, so nobody ever took from it
            return 0
