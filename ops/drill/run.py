"""Taking turns: every drill plays a round, until all have played enough or the time is over."""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ops.drill import tracing, work
from ops.drill.backups import BackupDrill, RestoreDrill
from ops.drill.child import Violation
from ops.drill.damage import DamageDrill
from ops.drill.migrations import MigrateDrill
from ops.drill.small import shrink
from ops.drill.stores import KEPT, Drill, FullDiskDrill, StoreDrill, Tally

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_QUIET_S = 30
"""Seconds between lines of progress where nobody watches."""

_DRILLS: dict[str, Callable[..., Drill]] = {
    "insert": partial(StoreDrill, task=work.write, inserting=0.85),
    "delete": partial(StoreDrill, task=work.write, inserting=0.4),
    "compact": partial(StoreDrill, task=work.compact, inserting=0.6),
    "retrain": partial(StoreDrill, task=work.retrain, inserting=0.6, long_codes=True),
    "full": partial(FullDiskDrill, task=work.fill_up, inserting=0.7),
    "migrate": MigrateDrill,
    "backup": BackupDrill,
    "restore": RestoreDrill,
    "damage": DamageDrill,
}
NAMES = tuple(_DRILLS)


def drill_all(
    names: Sequence[str], *, rounds: int, minutes: float, seed: int, folder: Path | None
) -> list[tuple[str, Tally]]:
    """Do drills in turns.

    Args:
        names: Of `NAMES`.
        rounds: Of each drill.
        minutes: After this time no round is begun.
        seed: What is drawn is drawn from here; moments of a kill are never the same twice.
        folder: Where stores are made; a folder in memory by default, for a kill does not harm
            what the kernel has been told to write.

    Returns:
        What each drill has met.

    Raises:
        Violation: A store is not what it must be. It is kept, and the message says where.
    """
    shrink()
    gc.freeze()
    tqdm.monitor_interval = 0  # a process that forks has no other threads
    place = Path(tempfile.mkdtemp(prefix="lookalike-drill-", dir=folder or _memory()))
    traced = tracing.allowed()
    if not traced:
        tqdm.write("Nothing may be traced here: kills come at moments only", file=sys.stderr)
    drills = [_DRILLS[name](name, place / name, seed, traced=traced) for name in names]
    end = time.monotonic() + minutes * 60
    for one in _turns(drills, rounds, end):
        begin = time.monotonic()
        try:
            one.round()
        except Violation as violation:
            raise Violation(_told(one, violation)) from violation
        one.tally.seconds += time.monotonic() - begin
    for one in drills:
        one.end()
    shutil.rmtree(place)
    return [(one.name, one.tally) for one in drills]


def _turns(drills: Sequence[Drill], rounds: int, end: float) -> Iterator[Drill]:
    """Yield whose turn it is, and show how far it has come."""
    watched = sys.stderr.isatty()
    every = 0.2 if watched else _QUIET_S
    total = rounds * len(drills)
    with tqdm(
        total=total, unit=" rounds", mininterval=every, delay=0 if watched else every
    ) as bar:
        for turn in range(total):
            if time.monotonic() > end:
                return
            yield drills[turn % len(drills)]
            bar.update()


def _memory() -> Path | None:
    return _MEMORY if _MEMORY.is_dir() else None


def _told(one: Drill, violation: Violation) -> str:
    return (
        f"{one.name}, round {one.tally.rounds} of seed {one.seed}: {violation}\n"
        f"What the kill left is kept in {one.folder / KEPT}; "
        f"repeat it with: python -m ops.drill --only {one.name} --seed {one.seed}"
    )
