"""The drill of migration."""

from __future__ import annotations

import shutil
from pathlib import Path

from ops.drill.child import Violation, ask_child
from ops.drill.format1 import old_sources, write_old_store
from ops.drill.judge import insist_on_names, judge
from ops.drill.stores import KILLS, SHARD, Drill, discard
from ops.drill.world import Held, State, delivered
from store.layout import FORMAT
from store.migrate import format_of, migrate

_OLD_FORMAT = 1


class MigrateDrill(Drill):
    """A store of format 1 is migrated; each call is killed, until one may end."""

    def begin(self) -> None:
        """Write a store of format 1, with gaps where images were deleted."""
        self.world = self.new_world()
        count = self.chance.randrange(1, 60)
        rows = sorted(self.chance.sample(range(80), count))
        numbers = self.chance.sample(range(len(self.world.names)), count)
        self.rows = dict(zip(numbers, rows, strict=True))
        self.state: State = {n: _old(delivered(n, 0)) for n in numbers}
        next_row = rows[-1] + 1 + self.chance.randrange(30)
        images = {row: self.world.image(number, 0) for number, row in self.rows.items()}
        write_old_store(self.folder / "pristine", self.world.spec, images, next_row)

    def play(self) -> None:
        """Kill up to three migrations of it, and let the next one end."""
        shards = self.folder / "shards"
        path = shards / SHARD
        shutil.rmtree(shards, ignore_errors=True)
        shutil.copytree(self.folder / "pristine", path)
        for _ in range(self.chance.randrange(1, KILLS + 1)):
            self.kill(lambda _: discard(migrate(path)))
            self.keep(shards)
            ask_child(lambda _: _insist_on_format(path))
        ask_child(lambda _: discard(migrate(path)))
        judge(path, self.world, [(self.state,)], self.rows)
        insist_on_names(shards, {SHARD})


def _old(held: Held) -> Held:
    return held._replace(sources=old_sources(held.sources[0]), labels=())


def _insist_on_format(path: Path) -> None:
    version = format_of(path)
    if version not in (_OLD_FORMAT, FORMAT):
        raise Violation(f"the store has format {version}")
