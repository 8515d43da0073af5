"""A process that changes, compacts and retrains a store for ever, and reports what it commits.

Usage: python store_upkeep.py FOLDER SEED WHAT
WHAT is "compact", "retrain" or, to do nothing but open it, "open". It inserts and deletes batches
of images meanwhile: before each such change it prints `+ FIRST COUNT` or `- FIRST COUNT`, and
after it `done`.
"""

import random
import sys

import numpy as np
from store_world import make_id, make_image, make_spec

from ops.drill.small import small_segments
from store import Shard

BITS = 40
ROWS = 16
STEP = 20


def main(folder, seed, what):
    chance = random.Random(seed)
    with small_segments(ROWS), Shard.open(folder, make_spec(BITS)) as shard:
        report("ready")
        while what != "open":
            change(shard, chance)
            if what == "compact":
                shard.compact(dead_share=0.1)
            else:
                retrain_a_little(shard, chance)


def change(shard, chance):
    first, count = chance.randrange(200), chance.randrange(1, 12)
    numbers = range(first, first + count)
    added = chance.random() < 0.5
    report(f"{'+' if added else '-'} {first} {count}")
    if added:
        shard.insert([make_image(number, BITS) for number in numbers])
    else:
        shard.delete([make_id(number) for number in numbers])
    report("done")


def retrain_a_little(shard, chance):
    if shard.retraining() is None or chance.random() < 0.1:
        shard.begin_retraining(centres(chance.randrange(5)))
    for _ in range(chance.randrange(8)):
        shard.retrain_step(STEP)


def centres(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (8 + number, BITS // 8), np.uint8)


def report(message):
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
