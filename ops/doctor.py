"""Looking at the machine and the settings: one finding for each thing that could be wrong."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version

import numpy as np
from kombu.exceptions import OperationalError

from models.engines import open_engine
from models.errors import ModelError
from ops.lock import make_data_dir, server_of
from ops.reachability import broker_problem, consumers, shown_address
from ops.wording import counted
from store import Shard, StoreError
from store.kernels import COMPILED
from workers.bundles import find_bundle
from workers.errors import WorkerError
from workers.ledger import Ledger
from workers.settings import Settings
from workers.shards import Shards

LEAST_FREE_BYTES = 1 << 30
LEAST_DESCRIPTORS = 1024
SLOW_FSYNC_MS = 20.0

_PYTHON = platform.python_version()
_FSYNCS = 9
_BLOCK_BYTES = 4096


class State(StrEnum):
    """How a thing is: fine, workable, or in the way of everything else."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """What was found about one thing."""

    name: str
    state: State
    message: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at one thing after the other; nothing is stored or changed."""
    for check in CHECKS:
        yield _looked(check, settings)


def _looked(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except WorkerError as error:
        return Finding(_name(check), State.FAIL, error.message, error.remedy)
    except (ModelError, StoreError, OSError) as error:
        return Finding(_name(check), State.FAIL, f"{error}.".replace("..", "."))


def packages(_settings: Settings) -> Finding:
    """Look for the packages that lookalike needs."""
    lines = [line for line in requires("lookalike") or [] if "extra ==" not in line]
    names = [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in lines]
    missing = [name for name in names if not _installed(name)]
    if missing:
        return Finding(
            "packages", State.FAIL, f"{', '.join(missing)} missing.", "Run `make setup`."
        )
    told = f"lookalike {version('lookalike')} and {len(names)} packages on Python {_PYTHON}"
    return Finding("packages", State.OK, told)


def kernels(_settings: Settings) -> Finding:
    """See whether the inner loops of searches are compiled."""
    if not COMPILED:
        return Finding(
            "kernels",
            State.WARN,
            "not compiled, so searches take two to five times as long.",
            "Install a C compiler and Python's headers, then lookalike once more.",
        )
    return Finding("kernels", State.OK, "the inner loops of searches are compiled")


def data_dir(settings: Settings) -> Finding:
    """See whether the data directory can be written to, and how much room there is."""
    folder = settings.data_dir
    make_data_dir(folder)
    with tempfile.TemporaryFile(dir=folder):
        free = shutil.disk_usage(folder).free
    told = f"{folder}, {free / 2**30:,.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        return Finding("data_dir", State.WARN, told, "Free some space before a large ingest.")
    return Finding("data_dir", State.OK, told)


def fsync(settings: Settings) -> Finding:
    """Measure what the disk takes to make one write durable: every commit pays it."""
    make_data_dir(settings.data_dir)
    with tempfile.TemporaryFile(dir=settings.data_dir) as file:
        took_ms = statistics.median(_synced_ms(file.fileno()) for _ in range(_FSYNCS))
    told = f"{took_ms:.1f} ms for a durable write"
    if took_ms > SLOW_FSYNC_MS:
        return Finding("fsync", State.WARN, told, "Bulk ingest is quicker on a local SSD.")
    return Finding("fsync", State.OK, told)


def bundle(settings: Settings) -> Finding:
    """Make the bundle ready, and see whether its network gives finite numbers."""
    found = find_bundle(settings)
    side = found.preprocess.input_px
    with open_engine(
        found,
        engine=settings.engine,
        threads=settings.engine_threads,
        device=settings.engine_device,
    ) as engine:
        pixels = np.zeros((1, side, side, 3), np.uint8)
        engine.embed(pixels)  # the first run allocates
        begin = time.perf_counter()
        engine.embed(pixels)
    took_ms = (time.perf_counter() - begin) * 1000
    return Finding(
        "bundle", State.OK, f"{found.id}, {took_ms:.0f} ms an image by {settings.engine}"
    )


def store(settings: Settings) -> Finding:
    """Open each shard; see whether their number and the bundle are those of the settings."""
    root = settings.data_dir / "shards"
    paths = sorted(root.glob("*-of-*"))
    if not paths:
        return Finding("store", State.OK, "no images yet")
    in_use = find_bundle(settings)
    used = in_use.id
    Shards(root, in_use, count=settings.shards)  # refuses another number, and opens nothing yet
    counts = []
    for path in paths:
        with Shard.open_existing(path) as shard:
            counts.append(shard.count())
            built = shard.spec.bundle_id
        if built != used:
            return Finding(
                "store",
                State.FAIL,
                f"{path} was built with bundle {built}, and {used} is in use.",
                "Go back to that bundle with --bundle, or ingest into another --data-dir.",
            )
    return Finding(
        "store", State.OK, f"{counted(sum(counts), 'image')} in {counted(len(paths), 'shard')}"
    )


def ledger(settings: Settings) -> Finding:
    """Connect to the ledger."""
    make_data_dir(settings.data_dir)
    opened = Ledger(settings.database_url)
    try:
        open_jobs = len(opened.jobs.open_ids())
        return Finding("ledger", State.OK, f"{opened.database.dialect}, {open_jobs} open jobs")
    finally:
        opened.close()


def broker(settings: Settings) -> Finding:
    """Connect to the broker, and see whether somebody takes messages from each queue."""
    if settings.embedded:
        return Finding("broker", State.OK, "embedded, with the workers inside `lookalike serve`")
    problem = broker_problem(settings)
    if problem is not None:
        return Finding("broker", State.FAIL, problem.message, problem.remedy)
    try:
        deserted = [queue for queue, count in consumers(settings).items() if not count]
    except (OperationalError, OSError) as error:
        return Finding("broker", State.FAIL, f"The broker went away: {error}.", "Try again.")
    address = shown_address(settings)
    if deserted:
        told = f"{address}; nobody takes messages from {', '.join(deserted)}"
        return Finding("broker", State.WARN, told, "Start `lookalike worker`.")
    return Finding("broker", State.OK, f"{address}, a worker at each queue")


def server(settings: Settings) -> Finding:
    """See whether a server has the data directory."""
    holder = server_of(settings.data_dir)
    if holder is None:
        return Finding("server", State.OK, "none runs on this data directory")
    where = holder.get("url", "starting")
    return Finding("server", State.OK, f"process {holder.get('pid', 'unknown')}, {where}")


def descriptors(_settings: Settings) -> Finding:
    """Look at the limit of open files: each connection to the site takes one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < LEAST_DESCRIPTORS:
        return Finding(
            "descriptors",
            State.WARN,
            f"at most {limit} open files",
            f"Raise the limit: `ulimit -n {LEAST_DESCRIPTORS}`.",
        )
    return Finding("descriptors", State.OK, f"at most {limit:,} open files")


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    packages,
    kernels,
    data_dir,
    fsync,
    bundle,
    store,
    ledger,
    broker,
    server,
    descriptors,
)


def _name(check: Callable[[Settings], Finding]) -> str:
    return str(getattr(check, "__name__", "check"))


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _synced_ms(descriptor: int) -> float:
    os.write(descriptor, bytes(_BLOCK_BYTES))
    begin = time.perf_counter()
    os.fsync(descriptor)
    return (time.perf_counter() - begin) * 1000
