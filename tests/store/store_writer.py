"""A process that inserts batches for ever, or a number of them, and reports each commit.

Usage: python store_writer.py FOLDER FIRST_BATCH STRIDE BATCHES BATCH_SIZE MAP_BYTES
Batch b holds the images b * BATCH_SIZE and following; its number is printed once it is
committed.
"""

import sys

from store_world import make_image, make_spec

from store import Shard


def main(folder, first, stride, batches, size, map_bytes):
    with Shard.open(folder, make_spec(), map_bytes=map_bytes) as shard:
        report("ready")
        for batch in range(first, first + stride * batches, stride):
            shard.insert([make_image(batch * size + i) for i in range(size)])
            report(batch)


def report(message):
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
