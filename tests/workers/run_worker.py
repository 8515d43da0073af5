"""Run one worker process: ``python -m tests.workers.run_worker LANE``, settings by environment."""

from __future__ import annotations

import sys

from workers.lanes import lane_of
from workers.process import run_worker
from workers.settings import Settings

if __name__ == "__main__":
    run_worker(Settings.load(), lane_of(sys.argv[1]), number=1)
