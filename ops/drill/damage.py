"""A drill without a kill: bits of a file are flipped, or its end is cut off."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ops.drill.child import Tell, Violation, ask_child
from ops.drill.judge import insist
from ops.drill.stores import Drill
from ops.drill.work import BEGUN, DONE, possible
from ops.drill.world import State, World, apply, plan
from store import Shard, StoreError, page_problems

_NAMED, _UNHARMED = b"n", b"u"


class DamageDrill(Drill):
    """What was damaged is named: by the check of pages, by opening, by the check, or it is right.

    In the tally `killed` counts damages, `open` those that are named, and `happened` those that
    hurt nothing: in a place that is not in use.
    """

    def begin(self) -> None:
        """Make a store that has been through everything."""
        self.world = self.new_world(long_codes=self.chance.random() < 0.5)
        changes = plan(self.chance, 0, 10, 0.7)

        def work(_: Tell) -> None:
            with self.world.open(self.folder / "pristine") as shard:
                for change in changes:
                    apply(shard, self.world, change)
                    shard.compact(dead_share=0.1)

        ask_child(work)
        self.state: State = possible({}, changes, (BEGUN + DONE) * len(changes))[0]

    def play(self) -> None:
        """Damage a file, and see that it is named."""
        path = self.folder / "store"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.folder / "pristine", path)
        self._damage(path)
        self.keep(path)

        def work(tell: Tell) -> None:
            tell(_NAMED if self._named(path) else _UNHARMED)

        told = ask_child(work)
        self.tally.killed += 1
        self.tally.open += told == _NAMED
        self.tally.happened += told == _UNHARMED

    def _damage(self, path: Path) -> None:
        files = [path / "data.mdb", *sorted((path / "segments").iterdir())]
        file = self.chance.choice(files)
        size = file.stat().st_size
        if self.chance.random() < 0.2:
            os.truncate(file, self.chance.randrange(size))
            return
        whole = bytearray(file.read_bytes())
        for _ in range(self.chance.choice((1, 1, 1, 8))):
            whole[self.chance.randrange(size)] ^= 1 << self.chance.randrange(8)
        file.write_bytes(whole)

    def _named(self, path: Path) -> bool:
        if page_problems(path):
            return True
        try:
            with self.world.open(path) as shard:
                return self._found_out(shard)
        except StoreError as error:
            return _insist_on_words(error)

    def _found_out(self, shard: Shard) -> bool:
        """Search before any check: errors are named, and no image is made up."""
        for number in sorted(self.state)[:3]:
            try:
                _insist_on_real_hits(shard, self.world, number, self.state)
            except StoreError as error:
                if shard.check().ok:
                    raise Violation(f"a search says {error}, and the check nothing") from error
        if not shard.check().ok:
            return True
        insist(shard, self.world, [(self.state,)])
        return False


def _insist_on_real_hits(shard: Shard, world: World, number: int, state: State) -> None:
    there = {world.names[one] for one in state}
    for hit in shard.hits(shard.search(world.query(number, k=1000))):
        if hit.id not in there:
            raise Violation(f"a search found {hit.id}, which is not in the store")


def _insist_on_words(error: StoreError) -> bool:
    if not str(error):
        raise Violation(f"{type(error).__name__} says nothing") from error
    return True
