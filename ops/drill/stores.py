"""Drills on a store of this format: writers, alone and several at once, that are killed."""

from __future__ import annotations

import resource
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.drill import disk
from ops.drill.child import Child, Pace, Tell
from ops.drill.judge import judge
from ops.drill.work import BEGUN, DONE, Task, at_work, possible, reading
from ops.drill.world import PARTS, Change, State, World, drawn, plan
from store import StoreFull

KEPT = "as-it-was-left"
"""Folder of what the last kill has left, as it was before anybody opened it."""

SHARD = "0-of-1"

KILLS = 3
"""At most so many calls are killed until one may end."""

_ROUNDS_A_STORE = 20
"""After so many rounds a drill begins a new store, of other sizes."""

_CHANGES = 12
_FULL_BYTES = (20_000, 400_000)
_FREE_BYTES = (20_000, 300_000)
"""For one: what making a store takes. For the other: what it takes later."""


@dataclass
class Tally:
    """What a drill has met.

    Attributes:
        rounds: How many there were.
        killed: Processes that were killed at work.
        changes: Changes that were reported as done.
        open: Processes that were killed between the reports of a change.
        happened: How many of those changes had happened.
        seconds: Time of all rounds.
    """

    rounds: int = 0
    killed: int = 0
    changes: int = 0
    open: int = 0
    happened: int = 0
    seconds: float = 0


class Drill(ABC):
    """One operation.

    Args:
        name: Of the operation.
        folder: Its own; the stores are in it.
        seed: All that is drawn is drawn from here.
        traced: Whether processes may be traced.
    """

    def __init__(self, name: str, folder: Path, seed: int, *, traced: bool) -> None:
        self.name = name
        self.folder = folder
        self.seed = seed
        self.tally = Tally()
        self.pace = Pace(traced=traced)
        self.chance = drawn(f"{name} {seed}")

    def round(self) -> None:
        """Do one round.

        Raises:
            Violation: A store is not what it must be.
        """
        if self.tally.rounds % _ROUNDS_A_STORE == 0:
            self.end()
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self.begin()
        self.play()
        self.tally.rounds += 1

    @abstractmethod
    def begin(self) -> None:
        """Begin with an empty folder."""

    def end(self) -> None:  # noqa: B027 - most have nothing to do
        """Clear away what is more than files."""

    @abstractmethod
    def play(self) -> None:
        """Let a process be killed, and have what is left judged."""

    def new_world(self, *, long_codes: bool = False) -> World:
        """Make up another world."""
        return World.of(self.chance.randrange(10**9), long_codes=long_codes)

    def kill(self, work: Callable[[Tell], None]) -> bytes:
        """Let one process work until it is killed; return what it told."""
        child = Child(work, traced=self.draw_traced())
        try:
            self.tally.killed += child.kill(self.pace, self.chance)
            return child.end()
        finally:
            child.abandon()

    def draw_traced(self) -> bool:
        """Tell whether the next process is killed at a system call."""
        return self.pace.traced and self.chance.random() < 0.5

    def keep(self, path: Path) -> None:
        """Keep a store as the kill has left it: whoever opens it tidies up."""
        kept = self.folder / KEPT
        shutil.rmtree(kept, ignore_errors=True)
        if path.exists():
            shutil.copytree(path, kept)


class StoreDrill(Drill):
    """A drill on one store that goes on from round to round.

    Args:
        task: What the first process does.
        inserting: Share of inserts among the changes.
        long_codes: Whether all worlds have codes that are filed by centres.
        rest: As of `Drill`.
    """

    def __init__(
        self, *rest: Any, task: Task, inserting: float, long_codes: bool = False, traced: bool
    ) -> None:
        super().__init__(*rest, traced=traced)
        self.task = task
        self.inserting = inserting
        self.long_codes = long_codes

    def begin(self) -> None:
        """Begin with no store at all: being killed while it is made counts too."""
        self.world = self.new_world(long_codes=self.long_codes)
        self.states: list[State] = [{} for _ in range(PARTS)]
        self.again: list[list[Change]] = [[] for _ in range(PARTS)]

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self.folder / "store"

    def play(self) -> None:
        """Kill one process, or several; a reader may look on, and a last writer may live."""
        count = self.chance.choice((1, 1, 2, PARTS))
        plans = [self._plan(part) for part in range(count)]
        try:
            told = self._kill_some(plans)
        finally:
            self.keep(self.path)
        parts: list[Sequence[State]] = [(state,) for state in self.states]
        for part, (changes, marks) in enumerate(zip(plans, told, strict=True)):
            parts[part] = possible(self.states[part], changes, marks)
            self._remember(part, changes, marks)
        before, self.states = parts, judge(self.path, self.world, parts)
        for states, state in zip(before, self.states, strict=True):
            self.tally.open += len(states) - 1
            self.tally.happened += len(states) == 2 and state is states[1]

    def _plan(self, part: int) -> list[Change]:
        """Draw changes. One that was cut off may be delivered again first, as a queue does."""
        first = self.again[part] if self.chance.random() < 0.5 else []
        return [*first, *plan(self.chance, part, _CHANGES, self.inserting)]

    def _remember(self, part: int, changes: Sequence[Change], told: bytes) -> None:
        begun = told.count(BEGUN)
        cut_off = begun > len(told) - begun
        self.again[part] = [changes[begun - 1]] if cut_off else []
        self.tally.changes += told.count(DONE)

    def _kill_some(self, plans: Sequence[list[Change]]) -> list[bytes]:
        with ExitStack() as stack:
            reader = self._reader(stack) if self.chance.random() < 0.2 else None
            told = self._work(plans, stack)
            if reader is not None:
                reader.stop()
        return told

    def _reader(self, stack: ExitStack) -> Child:
        child = Child(self._looking(self.chance.randrange(10**9)))
        stack.callback(child.abandon)
        child.hear()
        return child

    def _looking(self, seed: int) -> Callable[[Tell], None]:
        return reading(self.path, self.world, seed)

    def _work(self, plans: Sequence[list[Change]], stack: ExitStack) -> list[bytes]:
        traced = self.draw_traced()
        children = [
            Child(self._job(part, changes), traced=traced and part == 0)
            for part, changes in enumerate(plans)
        ]
        for child in children:
            stack.callback(child.abandon)
        spared = len(children) - 1 if len(children) > 1 and self.chance.random() < 0.3 else -1
        for number, child in enumerate(children):
            if number != spared:
                self.tally.killed += child.kill(self.pace, self.chance)
        return [child.end() for child in children]

    def _job(self, part: int, changes: Sequence[Change]) -> Callable[[Tell], None]:
        seed, state = self.chance.randrange(10**9), self.states[part]
        return at_work(self.path, self.world, self.task, seed, state, changes)


class FullDiskDrill(StoreDrill):
    """The same where there is little room, on a disk that is almost full or for any one file.

    Stores take turns: one on a small disk, where this process may mount one, and one whose files
    may not grow beyond some size, which fails with another number.
    """

    private = False
    small_disk = False

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self.folder / "disk" / "store"

    def begin(self) -> None:
        """Begin with an empty disk."""
        super().begin()
        self.private = self.private or disk.become_private()
        self.small_disk = self.private and not self.small_disk
        if self.small_disk:
            disk.mount(self.path.parent)

    def end(self) -> None:
        """Unmount the disk."""
        if self.small_disk:
            disk.unmount(self.path.parent)

    def play(self) -> None:
        """Fill the disk, play, and free it for the judge."""
        if not self.small_disk:
            super().play()
            return
        disk.leave_free(self.path.parent, self.chance.randrange(self.chance.choice(_FREE_BYTES)))
        super().play()

    def keep(self, path: Path) -> None:
        """Keep the store and free the disk."""
        super().keep(path)
        disk.free(path.parent)

    def _job(self, part: int, changes: Sequence[Change]) -> Callable[[Tell], None]:
        work = super()._job(part, changes)
        limit = self.chance.randrange(*_FULL_BYTES)

        def limited(tell: Tell) -> None:
            if not self.small_disk:
                with self.world.open(self.path):
                    pass
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            with suppress(StoreFull):  # of opening it; changes report it
                work(tell)

        return limited

    def _looking(self, seed: int) -> Callable[[Tell], None]:
        work = super()._looking(seed)

        def looking(tell: Tell) -> None:
            with suppress(StoreFull):  # of opening it, once more
                work(tell)

        return looking


def discard(_: object) -> None:
    """Take what a call returns, where a child has nothing to tell."""
