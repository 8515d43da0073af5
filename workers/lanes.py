"""Lanes: which queues are served together, by how many workers, and how far they fetch ahead.

A worker takes one message at a time. Interactive work has workers of its own, so it never waits
behind a bulk job; searches wait for probes, so these have their own too. A lane is a set of
processes on RabbitMQ and a set of threads in the embedded default; what runs in them is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.app import CRAWL, INGEST, INGEST_LIVE, PROBE, SEARCH


@dataclass(frozen=True)
class Lane:
    """A kind of worker.

    Attributes:
        workers: How many there are by default.
        prefetch: Messages that a worker holds at once, the one at work included. More than one
            hides the way to the broker, at the price that a waiting message cannot go to an idle
            neighbour.
        niceness: How far it makes way for others when the processor is busy.
    """

    name: str
    queues: tuple[str, ...]
    workers: int
    prefetch: int
    niceness: int = 0


INTERACTIVE, PROBES, BULK, CRAWLS = "interactive", "probe", "bulk", "crawl"

LANES = (
    # One at a time each: a search must go to whoever is free.
    Lane(INTERACTIVE, (SEARCH, INGEST_LIVE), workers=2, prefetch=1),
    # Likewise; the two groups of a search are to run side by side.
    Lane(PROBES, (PROBE,), workers=2, prefetch=1),
    # The next batch waits in the worker while one is at work. There is no idle neighbour to lose
    # it to, since a batch keeps every core busy.
    Lane(BULK, (INGEST,), workers=1, prefetch=2, niceness=5),
    # Sleeps between pages, so it has a worker of its own.
    Lane(CRAWLS, (CRAWL,), workers=1, prefetch=1),
)


def lane_of(name: str) -> Lane:
    """Return a lane by its name.

    Raises:
        KeyError: There is none.
    """
    return {lane.name: lane for lane in LANES}[name]
