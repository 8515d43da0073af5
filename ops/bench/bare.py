"""The bare loop: files to features and codes, with no queue, store, ledger or thumbnail.

It is the yardstick for ingest, so it should be as fast as such a loop can be: several ways to
spread it over the cores are tried, and the fastest counts.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.bundle import Bundle, load_bundle
from models.engine import Engine
from models.engines import open_engine
from models.images import upright_rgb
from models.preprocess import Preprocess
from ops.bench.stack import CHILD
from ops.errors import OpsError
from workers.lanes import lane_of

_CHUNK = 16  # images that go through the network at once
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Arrangement:
    """A way to spread the loop over the cores.

    Attributes:
        processes: Processes that decode.
        threads: Threads of each network.
        apart: Whether one process of its own runs the network for all; otherwise each process
            runs one for the images that it decodes.
    """

    processes: int
    threads: int
    apart: bool

    def __str__(self) -> str:
        if self.apart:
            return (
                f"{self.processes} processes decode, "
                f"1 runs the network with {self.threads} thread(s)"
            )
        return f"{self.processes} processes decode and run a network of {self.threads} thread(s)"


def arrangements(cores: int) -> list[Arrangement]:
    """Return the ways that are worth trying on a number of cores."""
    return [
        Arrangement(cores, 1, apart=False),
        Arrangement(cores + 1, 1, apart=False),
        Arrangement(cores, cores, apart=True),
    ]


def run_bare(
    arrangement: Arrangement, bundle: Path, photos: Sequence[Path], warm_up: Sequence[Path]
) -> float:
    """Run the loop in processes of their own and return the images per second.

    Starting them, loading networks and a first go at other images are not counted.

    Raises:
        OpsError: It failed.
    """
    task = {
        "arrangement": asdict(arrangement),
        "bundle": str(bundle),
        "photos": [str(path) for path in photos],
        "warm_up": [str(path) for path in warm_up],
    }
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [*CHILD, "bare"], input=json.dumps(task), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OpsError(f"The bare loop failed:\n{done.stderr[-2000:]}")
    return float(done.stdout)


def bare_main() -> None:
    """Read a task from standard input, run it, and print images per second."""
    task = json.loads(input())
    # The bulk worker makes way for others as much.
    os.nice(lane_of("bulk").niceness)
    photos, warm_up = ([Path(path) for path in task[key]] for key in ("photos", "warm_up"))
    arrangement = Arrangement(**task["arrangement"])
    seconds = _timed(arrangement, Path(task["bundle"]), photos, warm_up)
    print(len(photos) / seconds)  # noqa: T201 - the answer to run_bare


def decode_file(path: Path, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Return the pixels that the network takes, shape=(H, W, 3), dtype=uint8."""
    with Image.open(path) as image:
        wanted = 2 * preprocess.min_side_px
        image.draft("RGB", (wanted, wanted))
        return preprocess.pixels(upright_rgb(image))


def _timed(
    arrangement: Arrangement, bundle: Path, photos: Sequence[Path], warm_up: Sequence[Path]
) -> float:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(arrangement.processes + 1)
    threads = 0 if arrangement.apart else arrangement.threads
    start = (bundle, threads, warm_up, ready)
    with context.Pool(arrangement.processes, _start_process, start) as pool:
        if not arrangement.apart:
            ready.wait(_START_TIMEOUT_S)
            return _side_by_side(pool, photos)
        loaded = load_bundle(bundle)
        with open_engine(loaded, threads=arrangement.threads) as engine:
            engine.embed(_pixels(loaded, warm_up))
            ready.wait(_START_TIMEOUT_S)
            return _apart(pool, engine, photos)


def _side_by_side(pool: Pool, photos: Sequence[Path]) -> float:
    begin = time.perf_counter()
    for _ in pool.imap_unordered(_decode_and_embed, _chunks(photos)):
        pass
    return time.perf_counter() - begin


def _apart(pool: Pool, engine: Engine, photos: Sequence[Path]) -> float:
    begin = time.perf_counter()
    for pixels in pool.imap_unordered(_decode, _chunks(photos)):
        engine.embed(pixels)
    return time.perf_counter() - begin


def _chunks(photos: Sequence[Path]) -> list[Sequence[Path]]:
    return [photos[first : first + _CHUNK] for first in range(0, len(photos), _CHUNK)]


@dataclass(frozen=True)
class _Kit:
    bundle: Bundle
    engine: Engine | None


_kit: _Kit | None = None


def _start_process(bundle: Path, threads: int, warm_up: Sequence[Path], ready: Barrier) -> None:
    global _kit
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    loaded = load_bundle(bundle)
    _kit = _Kit(loaded, open_engine(loaded, threads=threads) if threads else None)
    pixels = _pixels(loaded, warm_up)
    if _kit.engine is not None:
        _kit.engine.embed(pixels)
    ready.wait(_START_TIMEOUT_S)


def _loaded() -> _Kit:
    if _kit is None:
        raise RuntimeError("this runs in a process of the bare loop only")
    return _kit


def _pixels(bundle: Bundle, paths: Sequence[Path]) -> NDArray[np.uint8]:
    return np.stack([decode_file(path, bundle.preprocess) for path in paths])


def _decode(paths: Sequence[Path]) -> NDArray[np.uint8]:
    return _pixels(_loaded().bundle, paths)


def _decode_and_embed(paths: Sequence[Path]) -> None:
    kit = _loaded()
    if kit.engine is not None:
        kit.engine.embed(_pixels(kit.bundle, paths))
