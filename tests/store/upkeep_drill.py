"""Killing a process that looks after a store, and what must be there afterwards."""

import random
import time

from store_upkeep import BITS, ROWS
from store_world import make_id, make_spec, running

from ops.drill.small import small_segments
from store import Shard


def keeper(folder, seed, what):
    """A process that looks after a store, killed at the end."""
    return running("store_upkeep.py", folder, seed, what)


def kill_again_and_again(folder, what, *, times, seed, look=lambda shard: None):
    """Kill -9 at random moments; after each, `check` is clean and what was committed is there."""
    chance = random.Random(seed)
    present = set()
    for _ in range(times):
        with keeper(folder, chance.randrange(10**6), what) as process:
            time.sleep(chance.random() * 0.4)
            process.kill()
            lines = [line for line in process.stdout.read().split("\n")[:-1] if line != "done"]
        for line in lines[:-1]:
            present = after(present, line)
        possible = [present, after(present, lines[-1])] if lines else [present]
        with small_segments(ROWS), Shard.open(folder, make_spec(BITS)) as shard:
            assert shard.check().problems == ()
            found = {image.id for image in shard.recent(10**6)} if shard.count() else set()
            assert found in [{make_id(number) for number in numbers} for numbers in possible]
            present = next(n for n in possible if {make_id(number) for number in n} == found)
            look(shard)


def after(present, line):
    sign, first, count = line.split()
    numbers = set(range(int(first), int(first) + int(count)))
    return present | numbers if sign == "+" else present - numbers
