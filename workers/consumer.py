"""A Celery consumer that acknowledges at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker import consumer


class Consumer(consumer.Consumer):  # type: ignore[misc]  # Celery ships few types
    """Celery's consumer, for workers that take one message at a time."""

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Send an acknowledgement now, not in the event loop's next turn.

        The loop may go to sleep between the two. With one or two messages at a time the broker
        then holds the next one back until the acknowledgement, and the loop sleeps on until a
        timer wakes it, seconds later.
        """
        return p(*args, **kwargs)
