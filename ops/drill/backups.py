"""Drills of backups, and of restoring them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ops.drill.child import Tell, Violation, ask_child
from ops.drill.judge import insist_on_names, judge
from ops.drill.stores import KEPT, KILLS, SHARD, Drill, discard
from ops.drill.work import BEGUN, DONE, possible
from ops.drill.world import Change, State, apply, plan
from store import Shard
from store.backup import backup
from store.manifest import MANIFEST
from store.restoring import restore

_SAVING, _SAVED = b"s", b"k"


class BackupDrill(Drill):
    """A process changes a store and backs it up; what is restored is one of two backups."""

    def begin(self) -> None:
        """Begin with no store and no backup."""
        self.world = self.new_world()
        self.state: State = {}
        self.saved: State | None = None

    def play(self) -> None:
        """Kill it, judge the store, and judge what is restored from the backup."""
        path, target = self.folder / "shards" / SHARD, self.folder / "backup"
        changes = plan(self.chance, 0, 4, 0.7)
        told = self.kill(lambda tell: self._save(path, target, changes, tell))
        self.keep(self.folder / "shards")
        states, backups = self._possible(changes, told)
        (self.state,) = judge(path, self.world, [states])
        self.tally.changes += told.count(_SAVED)
        self.tally.open += len(backups) - 1 if self.saved is not None else 0
        if not (target / MANIFEST).exists():
            if self.saved is not None or _SAVED in told:
                raise Violation("a backup that was there is gone")
            return
        place = self.folder / "restored"
        ask_child(lambda _: discard(restore(target, place)))
        (self.saved,) = judge(place / SHARD, self.world, [backups])
        self.tally.happened += len(backups) > 1 and self.saved is backups[-1]
        shutil.rmtree(place)

    def _save(self, path: Path, target: Path, changes: Sequence[Change], tell: Tell) -> None:
        with self.world.open(path) as shard:
            for change in changes:
                tell(BEGUN)
                apply(shard, self.world, change)
                tell(DONE)
                if change.variant == 0:
                    shard.compact(dead_share=0)
                tell(_SAVING)
                backup([shard], target)
                tell(_SAVED)

    def _possible(
        self, changes: Sequence[Change], told: bytes
    ) -> tuple[tuple[State, ...], list[State]]:
        """Return what the store may hold, and what the backup may."""
        backups = [] if self.saved is None else [self.saved]
        for end in (i + 1 for i, byte in enumerate(told) if bytes([byte]) == _SAVING):
            (state,) = possible(self.state, changes, told[:end])
            backups = [state] if told[end : end + 1] == _SAVED else [*backups, state]
        return possible(self.state, changes, told), backups


class RestoreDrill(Drill):
    """A backup is restored over a collection; each call is killed, until one may end."""

    def begin(self) -> None:
        """Make a backup, and the collection that is to be replaced."""
        self.world = self.new_world()
        self.old = self._fill(self.folder / "old")
        self.new = self._fill(self.folder / "new")
        ask_child(lambda _: self._back_up(self.folder / "new"))

    def play(self) -> None:
        """Kill up to three restorations, and let the next one end."""
        target, place = self.folder / "backup", self.folder / "shards"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder / "old", place)
        for _ in range(self.chance.randrange(1, KILLS + 1)):
            self.kill(lambda _: discard(restore(target, place, force=True)))
            self.keep(place)
            judge(place / SHARD, self.world, [(self.old, self.new)])
        ask_child(lambda _: discard(restore(target, place, force=True)))
        judge(place / SHARD, self.world, [(self.new,)])
        insist_on_names(place, {SHARD})
        insist_on_names(self.folder, {"old", "new", "backup", "shards", KEPT})

    def _fill(self, place: Path) -> State:
        changes = plan(self.chance, 0, 8, 0.7)

        def work(_: Tell) -> None:
            with self.world.open(place / SHARD) as shard:
                for change in changes:
                    apply(shard, self.world, change)

        ask_child(work)
        return possible({}, changes, (BEGUN + DONE) * len(changes))[0]

    def _back_up(self, place: Path) -> None:
        with Shard.open_existing(place / SHARD) as shard:
            backup([shard], self.folder / "backup")
