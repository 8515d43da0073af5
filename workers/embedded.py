"""The embedded default: broker and workers inside the process that uses them.

The same Celery application, tasks and lanes as on RabbitMQ, over kombu's in-memory transport, with
a thread where RabbitMQ would have a process. What is queued when the process ends is lost with it;
the ledger still has it, and the next start sends it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from celery import Celery
from celery.worker import WorkController
from celery.worker import state as worker_state

from workers.errors import Unavailable
from workers.lanes import LANES, Lane

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 30.0


class EmbeddedWorkers:
    """All lanes as threads of this process.

    Celery keeps the wish to stop in a module variable, so there is one such object at a time in a
    process.

    Args:
        make_app: Makes an application with its tasks registered, for a worker of a lane. Every
            worker gets one of its own, because an application remembers one choice of queues to
            consume.
    """

    _only = threading.Lock()

    def __init__(self, make_app: Callable[[Lane], Celery]) -> None:
        self._make_app = make_app
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads and return when all of them take messages.

        Raises:
            Unavailable: This process already has embedded workers, or they do not start.
        """
        if not self._only.acquire(blocking=False):
            raise Unavailable("This process already runs embedded workers.")
        worker_state.should_stop = None
        # The in-memory queues belong to the process: what an earlier run left there is stale.
        self._make_app(LANES[0]).control.purge()
        ready = [self._start_thread(lane, number) for lane, number in _each(LANES)]
        for started in ready:
            if not started.wait(_START_TIMEOUT_S):
                self.close()
                raise Unavailable(f"A worker did not start within {_START_TIMEOUT_S:g} s.")

    def close(self) -> None:
        """Let the workers finish what they are at, and end them. May be called again."""
        if not self._threads:
            return
        worker_state.should_stop = 0
        while self._threads:
            self._threads.pop().join()
        worker_state.should_stop = None
        self._only.release()

    def _start_thread(self, lane: Lane, number: int) -> threading.Event:
        ready = threading.Event()
        name = f"{lane.name}-{number}"
        thread = threading.Thread(
            target=self._run, args=(lane, name, ready), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()
        return ready

    def _run(self, lane: Lane, name: str, ready: threading.Event) -> None:
        try:
            # Celery finds a message's application by the thread that works on it.
            app = self._make_app(lane)
            app.set_current()
            worker = WorkController(
                app=app,
                hostname=f"{name}@embedded",
                queues=list(lane.queues),
                ready_callback=lambda _consumer: ready.set(),
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
            )
            worker.start()
        except Exception:
            logger.exception("The embedded worker %s ended; restart to have it back.", name)


def _each(lanes: Sequence[Lane]) -> Iterator[tuple[Lane, int]]:
    for lane in lanes:
        for number in range(1, lane.workers + 1):
            yield lane, number
