"""Lanes: which queues are served together, and by how many workers.

A worker takes one message at a time and fetches none ahead, so a message goes to whoever is free.
Interactive work has workers of its own, so it never waits behind a bulk job; searches wait for
probes, so these have their own too. A lane is a set of processes on RabbitMQ and a set of threads
in the embedded default; what runs in them is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.app import CRAWL, INGEST, INGEST_LIVE, PROBE, SEARCH


@dataclass(frozen=True)
class Lane:
    """A kind of worker.

    Attributes:
        workers: How many there are by default.
        niceness: How far it makes way for others when the processor is busy.
    """

    name: str
    queues: tuple[str, ...]
    workers: int
    niceness: int = 0


INTERACTIVE, PROBES, BULK, CRAWLS = "interactive", "probe", "bulk", "crawl"

LANES = (
    Lane(INTERACTIVE, (SEARCH, INGEST_LIVE), workers=2),
    # The two groups of a search are to run side by side.
    Lane(PROBES, (PROBE,), workers=2),
    # While one waits for its decoders, the disk or the ledger, the other runs its network. They
    # share the cores between them, because two networks of one thread each do more than one of
    # two; see docs/performance.md.
    Lane(BULK, (INGEST,), workers=2, niceness=5),
    # Sleeps between pages, so it has a worker of its own.
    Lane(CRAWLS, (CRAWL,), workers=1),
)


def lane_of(name: str) -> Lane:
    """Return a lane by its name.

    Raises:
        KeyError: There is none.
    """
    return {lane.name: lane for lane in LANES}[name]
