"""The processes that benchmarks start besides those of the command line.

A worker as `lookalike worker` starts it, which notes the stages of every batch; the bare loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ops.bench.bare import bare_main
from ops.bench.stages import note_stages
from workers.lanes import lane_of
from workers.process import run_worker
from workers.settings import Settings


def run_lane(lane: str, number: str, stages: str) -> None:
    """Run one worker of a lane until SIGTERM."""
    with note_stages(Path(stages)):
        run_worker(Settings.load(), lane_of(lane), number=int(number))


_ROLES: dict[str, Callable[..., None]] = {"worker": run_lane, "bare": bare_main}

if __name__ == "__main__":
    _ROLES[sys.argv[1]](*sys.argv[2:])
