"""Processes that a benchmark of the store starts: one that has it open, and one that writes.

Figures about memory and about opening are those of a process that has done nothing else.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench.figures import rounded, spread
from ops.bench.search_ask import Asked, Vectors, read_queries, read_vectors
from ops.bench.synthetic import images_of
from ops.errors import OpsError
from store import NewImage, Shard

_PROGRAM = (sys.executable, "-m", "ops.bench.search_child")
_MB = 1e6
DURABLE = 64
"""Images of a batch that is written while others search, as a worker writes them."""


def ask_child(role: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """Let a process of its own do a task, and return what it tells.

    Raises:
        OpsError: It failed.
    """
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [*_PROGRAM, role, json.dumps(task)],
        env=_one_thread(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OpsError(f"A process of the benchmark failed:\n{done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def writing(task: Mapping[str, Any]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Let a process write as fast as it can; what is given ends it and returns what it tells.

    Raises:
        OpsError: It failed.
    """
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [*_PROGRAM, "write", json.dumps(task)],
        env=_one_thread(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        if writer.stdout is None or writer.stdout.readline() != "writing\n":
            raise OpsError("The process that should write did not start to")

        def finish() -> dict[str, Any]:
            told, _ = writer.communicate("end\n")
            if writer.returncode:
                raise OpsError("The process that should write failed, see above")
            figures: dict[str, Any] = json.loads(told)
            return figures

        try:
            yield finish
        finally:
            writer.kill()


def memory_mb() -> dict[str, float]:
    """Return the memory of this process: its own, and pages of files that others share."""
    status = Path("/proc/self/status").read_text()
    kinds = re.findall(r"^(Rss\w+):\s+(\d+) kB$", status, re.MULTILINE)
    found = {kind: int(kb) for kind, kb in kinds}
    return {
        "private": rounded(found["RssAnon"] * 1024 / _MB),
        "mapped": rounded((found["RssFile"] + found["RssShmem"]) * 1024 / _MB),
    }


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def open_store(task: Mapping[str, Any]) -> dict[str, Any]:
    """Open a store and search it once with every query, effort by effort."""
    folder = Path(task["folder"])
    before = memory_mb()
    begin = time.perf_counter()
    shard = Shard.open_existing(folder / "shard")
    open_s = time.perf_counter() - begin
    opened = memory_mb()
    queries = read_queries(folder)
    base = memory_mb()["private"] - opened["private"]
    memory = {}
    spent: list[float] = []
    with shard:
        for effort, wanted in task["efforts"].items():
            asked = Asked(shard, queries, task["k"], wanted)
            times = [asked.timed(i) for i in range(task["queries"])]
            shard.warm_up()
            memory[effort] = rounded(memory_mb()["private"] - base)
            spent = spent or times
        mapped = memory_mb()["mapped"]
    return {
        "open_s": rounded(open_s),
        "interpreter_mb": before["private"],
        "opened_mb": opened["private"],
        "searched_mb": memory,
        "mapped_mb": mapped,
        "first_time_p50_ms": spread(spent, 50)["p50"],
    }


def search_cold(task: Mapping[str, Any]) -> dict[str, Any]:
    """Search with no page of the store in memory, opening it anew each time."""
    folder = Path(task["folder"])
    queries = read_queries(folder)
    with Shard.open_existing(folder / "shard") as shard:
        Asked(shard, queries, task["k"], task["wanted"]).whole(task["queries"])
    os.sync()
    spent, opened, read = [], [], []
    for i in range(task["queries"]):
        _evict(folder / "shard")
        since = _read_bytes()
        begin = time.perf_counter()
        with Shard.open_existing(folder / "shard") as shard:
            opened.append((time.perf_counter() - begin) * 1000)
            spent.append(Asked(shard, queries, task["k"], task["wanted"]).timed(i))
        read.append((_read_bytes() - since) / _MB)
    times = {f"{name}_ms": value for name, value in spread(spent, 50, 99).items()}
    return {
        **times,
        "open_ms": spread(opened, 50)["p50"],
        "read_mb": spread(read, 50)["p50"],
        "queries": len(spent),
    }


def write_on(task: Mapping[str, Any]) -> dict[str, Any]:
    """Append durable batches until a line comes on standard input."""
    folder, row = Path(task["folder"]), int(task["row"])
    fresh = read_vectors(Path(task["vectors"]))
    ended = threading.Event()
    threading.Thread(target=_await_line, args=(ended,), daemon=True).start()
    spent, written = 0.0, 0
    with Shard.open_existing(folder) as shard:
        while not ended.is_set():
            batch = fresh_images(fresh, row + written)
            begin = time.perf_counter()
            shard.insert(batch)
            spent += time.perf_counter() - begin
            written += DURABLE
            if written == DURABLE:  # searches that are soon over meet a writer, too
                _say("writing")
    return {"written": written, "written_per_s": rounded(written / max(spent, 1e-9))}


def fresh_images(vectors: Vectors, row: int) -> Sequence[NewImage]:
    """Return a batch of images that are new from a row on, looking like these in turn."""
    rows = row + np.arange(DURABLE)
    chosen = rows % len(vectors.codes)
    return images_of(rows, vectors.codes[chosen], vectors.features[chosen])


def _await_line(ended: threading.Event) -> None:
    sys.stdin.readline()
    ended.set()


def _evict(folder: Path) -> None:
    """Drop the pages of closed files from memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_bytes() -> int:
    """Return how much this process has made the disk read."""
    counters = Path("/proc/self/io").read_text()
    return int(re.findall(r"^read_bytes: (\d+)$", counters, re.MULTILINE)[0])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


_ROLES = {"open": open_store, "cold": search_cold, "write": write_on}

if __name__ == "__main__":
    _say(json.dumps(_ROLES[sys.argv[1]](json.loads(sys.argv[2]))))
