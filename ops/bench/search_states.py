"""The store in other states than warm and idle: just opened, cold, and while it is written to."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ops.bench.figures import median, rounded, spread
from ops.bench.search_ask import Asked, Vectors, read_vectors, write_vectors
from ops.bench.search_child import DURABLE, ask_child, fresh_images, writing
from ops.bench.search_ways import OURS
from ops.bench.synthetic import ids_of
from ops.errors import OpsError
from store import Shard
from workers.searching import candidates_for

if TYPE_CHECKING:
    from ops.bench.search_build import Collection

_OPENINGS = 2
_COLD_QUERIES = 20
_BATCHES = 50
_FRESH, _FRESH_IMAGES = "fresh.npz", 2_048
_DELETED = 50
_SPACE = 1.2  # of a copy, for what is written to it

MEMORY_OF = (
    "anonymous memory of a process that opened the store and searched, interpreter included; "
    "pages of its files are in the page cache, which gives them up"
)


def opening(
    collection: Collection, opened: dict[str, Any], *, k: int, effort: int
) -> dict[str, Any]:
    """Open the store in more fresh processes than the one that `searched` has told of."""
    again = [searched(collection, k=k, efforts=[effort], queries=1) for _ in range(_OPENINGS)]
    first, told = opened, [opened, *again]
    open_s = median([each["open_s"] for each in told])
    return {
        "way": OURS,
        "stage": "open",
        "p50_ms": rounded(open_s * 1000),
        "p99_ms": rounded(max(each["open_s"] for each in told) * 1000),
        "open_s": open_s,
        "memory_mb": first["opened_mb"],
        "memory_of": MEMORY_OF,
        "interpreter_mb": first["interpreter_mb"],
        "searched_mb": first["searched_mb"],
        "mapped_mb": first["mapped_mb"],
        "first_time_p50_ms": first["first_time_p50_ms"],
    }


def searched(
    collection: Collection, *, k: int, efforts: Sequence[int], queries: int
) -> dict[str, Any]:
    """Open the store in a fresh process and search it.

    Returns:
        Among others `searched_mb`, its megabytes by effort.
    """
    wanted = {effort: candidates_for(effort, k) for effort in efforts}
    task = {"folder": str(collection.folder), "k": k, "efforts": wanted, "queries": queries}
    return ask_child("open", task)


def cold(collection: Collection, *, k: int, effort: int) -> dict[str, Any]:
    """Search with the files of the store evicted from the page cache before each query."""
    task = {
        "folder": str(collection.folder),
        "k": k,
        "wanted": candidates_for(effort, k),
        "queries": min(_COLD_QUERIES, len(collection.queries.codes) - 1),
    }
    return {"way": OURS, "stage": "cold", "effort": effort, **ask_child("cold", task)}


@contextmanager
def copied(collection: Collection) -> Iterator[Path]:
    """Give a copy of the store that may be written to, and that is deleted afterwards.

    Raises:
        OpsError: There is no room for one.
    """
    cache = collection.folder.parent
    needed = sum(path.stat().st_size for path in collection.shard.rglob("*")) * _SPACE
    if shutil.disk_usage(cache).free < needed:
        raise OpsError(
            f"A copy of the store needs {needed / 1e9:.1f} GB in {cache}; make room, "
            "or leave out the stages that write"
        )
    prefix = f".{collection.folder.name}-copy-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=cache) as name:
        shutil.copytree(collection.shard, Path(name) / "shard")
        write_vectors(Path(name) / _FRESH, _like_stored(collection))
        yield Path(name) / "shard"


def _like_stored(collection: Collection) -> Vectors:
    """Return what is to be stored anew: images as they are there, not like the queries."""
    count = min(_FRESH_IMAGES, collection.source.n)
    rows = np.random.default_rng(1).choice(collection.source.n, count, replace=False)
    return collection.at(np.sort(rows))


def durable_batches(collection: Collection, copy: Path) -> dict[str, Any]:
    """Append batches of 64, each on the disk before the next."""
    spent = []
    fresh = read_vectors(copy.parent / _FRESH)
    with Shard.open_existing(copy) as shard:
        for number in range(_BATCHES):
            batch = fresh_images(fresh, collection.source.n + number * DURABLE)
            begin = time.perf_counter()
            shard.insert(batch)
            spent.append((time.perf_counter() - begin) * 1000)
    times = spread(spent, 50, 99)
    return {
        "way": OURS,
        "stage": "insert",
        "batch": DURABLE,
        "p50_ms": times["p50"],
        "p99_ms": times["p99"],
        "images_per_s": rounded(DURABLE * len(spent) * 1000 / sum(spent)),
    }


def deletes(collection: Collection, copy: Path) -> Iterator[dict[str, Any]]:
    """Delete images one by one and by the batch; the next search must not find them."""
    rows = np.random.default_rng(0).permutation(collection.source.n)
    batches_of = min(_DELETED, len(rows) // 2 // (DURABLE + 1))
    if not batches_of:
        raise OpsError(f"Deleting needs more than {len(rows)} images")
    rows = rows[: batches_of * (DURABLE + 1)]
    with Shard.open_existing(copy) as shard:
        for size, chosen in ((1, rows[:batches_of]), (DURABLE, rows[batches_of:])):
            batches = chosen.reshape(-1, size)
            spent = [_delete(shard, batch) / size for batch in batches]
            times = spread(spent, 50, 99)
            yield {
                "way": OURS,
                "stage": "delete",
                "batch": size,
                "p50_ms": times["p50"],
                "p99_ms": times["p99"],
                "per": "image",
            }
        _insist_on_gone(collection, shard, rows)


def _delete(shard: Shard, rows: Any) -> float:
    ids = [identity.tobytes().hex() for identity in ids_of(rows)]
    begin = time.perf_counter()
    there = shard.delete(ids)
    spent_ms = (time.perf_counter() - begin) * 1000
    if not all(there):
        raise OpsError("An image of the collection was not there to be deleted")
    return spent_ms


def _insist_on_gone(collection: Collection, shard: Shard, rows: Any) -> None:
    asked = Asked(shard, collection.queries, 100, 1_000)
    for i in range(min(20, len(collection.queries.codes))):
        found = asked.whole(i).rows
        if found is not None and len(np.intersect1d(found, rows)):
            raise OpsError("A search found an image that had been deleted")


def while_written(
    collection: Collection, copy: Path, *, k: int, effort: int, queries: int
) -> dict[str, Any]:
    """Search while another process appends at full speed, and before it does."""
    with Shard.open_existing(copy) as shard:
        asked = Asked(shard, collection.queries, k, candidates_for(effort, k))
        known = len(collection.queries.codes)
        for i in range(known - min(20, known), known):
            asked.whole(i)
        idle = [asked.timed(i) for i in range(queries)]
        row = collection.source.n + _BATCHES * DURABLE
        task = {"folder": str(copy), "vectors": str(copy.parent / _FRESH), "row": row}
        with writing(task) as finish:
            busy = [asked.timed(i) for i in range(queries)]
            written = finish()
    before, during = spread(idle, 50, 99), spread(busy, 50, 99)
    return {
        "way": OURS,
        "stage": "writes",
        "effort": effort,
        "p50_ms": during["p50"],
        "p99_ms": during["p99"],
        "idle_p50_ms": before["p50"],
        "idle_p99_ms": before["p99"],
        "p99_ratio": rounded(during["p99"] / before["p99"]),
        **written,
    }
