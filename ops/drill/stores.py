"""Drills on a store of this format: writers, alone and several at once, that are killed."""

from __future__ import annotations

import resource
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.drill.child import Child, Pace, Tell
from ops.drill.judge import judge
from ops.drill.work import BEGUN, DONE, Task, at_work, fill_up, possible, reading
from ops.drill.world import PARTS, Change, State, World, drawn, plan

KEPT = "as-it-was-left"
"""Folder of what the last kill has left, as it was before anybody opened it."""

SHARD = "0-of-1"

KILLS = 3
"""At most so many calls are killed until one may end."""

_ROUNDS_A_STORE = 20
"""After so many rounds a drill begins a new store, of other sizes."""

_CHANGES = 12
_FULL_BYTES = (20_000, 400_000)


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
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self.begin()
        self.play()
        self.tally.rounds += 1

    @abstractmethod
    def begin(self) -> None:
        """Begin with an empty folder."""

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
        with ExitStack() as stack:
            reader = self._reader(stack) if self.chance.random() < 0.2 else None
            told = self._work(plans, stack)
            if reader is not None:
                reader.ask(signal.SIGTERM)
                reader.end()
        parts: list[Sequence[State]] = [(state,) for state in self.states]
        for part, (changes, marks) in enumerate(zip(plans, told, strict=True)):
            parts[part] = possible(self.states[part], changes, marks)
            self._remember(part, changes, marks)
        self.keep(self.path)
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

    def _reader(self, stack: ExitStack) -> Child:
        child = Child(reading(self.path, self.world, self.chance.randrange(10**9)))
        stack.callback(child.abandon)
        child.hear()
        return child

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
    """The same where files may not grow beyond some size, which fails as a full disk does."""

    def _job(self, part: int, changes: Sequence[Change]) -> Callable[[Tell], None]:
        seed, state = self.chance.randrange(10**9), self.states[part]
        limit = self.chance.randrange(*_FULL_BYTES)
        work = at_work(self.path, self.world, fill_up, seed, state, changes)

        def limited(tell: Tell) -> None:
            with self.world.open(self.path):
                pass
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            work(tell)

        return limited


def discard(_: object) -> None:
    """Take what a call returns, where a child has nothing to tell."""
