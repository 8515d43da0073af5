"""What the processes of a drill do to a store until they are killed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ops.drill.child import Tell, Violation
from ops.drill.judge import insist_on_hits
from ops.drill.world import Change, State, World, after, apply, drawn, outcome
from store import Shard, StoreFull
from store.buckets import LONGEST_KEY_BITS

BEGUN, DONE, REFUSED, READY = b"b", b"d", b"f", b"r"


@dataclass
class Desk:
    """What a working process has before it.

    Attributes:
        shard: The store.
        world: Of the store.
        chance: What else it does is drawn from here.
        state: What the store holds of its part.
        changes: What it still has to do.
        tell: Where it reports.
    """

    shard: Shard
    world: World
    chance: Random
    state: State
    changes: Iterator[Change]
    tell: Tell

    def change(self) -> bool:
        """Do the next change and insist on its outcome; False where nothing is left to do.

        It is reported before and after, so that the parent knows what must have happened.
        """
        change = next(self.changes, None)
        if change is None:
            return False
        self.tell(BEGUN)
        try:
            found = apply(self.shard, self.world, change)
        except StoreFull:
            self.tell(REFUSED)
            return True
        if found != outcome(self.state, change):
            raise Violation(f"{change} had the outcome {found}")
        self.state = after(self.state, change)
        self.tell(DONE)
        return True


Task = Callable[[Desk], None]


def write(desk: Desk) -> None:
    """Do nothing else."""
    while desk.change():
        pass


def compact(desk: Desk) -> None:
    """Compact after each change."""
    while desk.change():
        desk.shard.compact(dead_share=desk.chance.choice((0.0, 0.25)))


def retrain(desk: Desk) -> None:
    """File anew, a few images after each change, now and then by other centres."""
    while desk.change():
        if desk.shard.retraining() is None or desk.chance.random() < 0.1:
            desk.shard.begin_retraining(desk.world.centres(desk.chance))
        for _ in range(desk.chance.randrange(8)):
            desk.shard.retrain_step(desk.chance.randrange(1, 30))


def fill_up(desk: Desk) -> None:
    """Do everything, whether the disk has room or not."""
    refused = [compact, retrain] if desk.world.spec.bits > LONGEST_KEY_BITS else [compact]
    while desk.change():
        try:
            desk.chance.choice(refused)(desk)
        except StoreFull:
            continue


def at_work(
    folder: Path, world: World, task: Task, seed: int, state: State, changes: Sequence[Change]
) -> Callable[[Tell], None]:
    """Return work for a child: to open a store and do a task."""

    def work(tell: Tell) -> None:
        with world.open(folder) as shard:
            task(Desk(shard, world, drawn(seed), state, iter(changes), tell))

    return work


def reading(folder: Path, world: World, seed: int) -> Callable[[Tell], None]:
    """Return work for a child: to search until SIGTERM, and insist on right answers."""

    def work(tell: Tell) -> None:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
        chance = drawn(seed)
        with world.open(folder) as shard:
            tell(READY)
            while not ended:
                insist_on_hits(shard, world, chance.randrange(len(world.names)))

    return work


def possible(state: State, changes: Sequence[Change], told: bytes) -> tuple[State, ...]:
    """Return what a store may hold of a part, by what a killed process had told.

    Returns:
        One state; or two, where the process was killed between the reports of a change.
    """
    coming, begun = iter(changes), None
    for mark in (bytes([byte]) for byte in told):
        if mark == BEGUN:
            begun = next(coming)
        elif mark == DONE and begun is not None:
            state, begun = after(state, begun), None
        elif mark == REFUSED:
            begun = None
    return (state,) if begun is None else (state, after(state, begun))
