"""What the network and its surroundings cost per image, by batch and by thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.bundle import Bundle
from models.engine import Engine
from models.engines import open_engine
from models.images import upright_rgb
from ops.bench.figures import rounded, spread
from ops.bench.output import put
from ops.bench.photos import photos_in, write_variants
from ops.bench.stack import scratch
from ops.cli.console import Console
from workers.bundles import find_bundle
from workers.settings import Settings


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        images: Folder of photographs, or ``None`` for variants of the demo ones.
        photos: How many images at most.
        batches: Numbers of images that go through the network at once.
        threads: Numbers of threads of the network.
        rounds: Times that the images go through the network.
    """

    images: Path | None
    photos: int
    batches: Sequence[int]
    threads: Sequence[int]
    rounds: int


def bench_extract(plan: Plan, console: Console) -> None:
    """Measure every batch size with every number of threads; one object each."""
    settings = Settings.load()
    bundle = find_bundle(settings)
    with scratch() as folder:
        photos = _photos(plan, folder)
        pixels, read_ms = _read(photos, bundle)
    for threads in plan.threads:
        with open_engine(bundle, threads=threads) as engine:
            engine.embed(pixels)
            for batch in plan.batches:
                times_ms = _network_ms(engine, pixels, batch, plan.rounds)
                figures = _figures(read_ms, times_ms, batch=min(batch, len(pixels)))
                asked = {"bundle": bundle.id, "images": len(pixels), "threads": threads}
                put(console, "extract", asked | figures)


def _photos(plan: Plan, folder: Path) -> list[Path]:
    if plan.images is None:
        return write_variants(folder, wanted=plan.photos)
    return photos_in(plan.images)[: plan.photos]


def _read(
    photos: Sequence[Path], bundle: Bundle
) -> tuple[NDArray[np.uint8], dict[str, list[float]]]:
    """Decode and preprocess; return pixels, shape=(N, H, W, 3), and milliseconds per image."""
    pixels, spent = [], {"decode": [0.0] * 0, "preprocess": [0.0] * 0}
    for path in photos:
        begin = time.perf_counter()
        with Image.open(path) as image:
            picture = upright_rgb(image)
        decoded = time.perf_counter()
        pixels.append(bundle.preprocess.pixels(picture))
        spent["decode"].append((decoded - begin) * 1000)
        spent["preprocess"].append((time.perf_counter() - decoded) * 1000)
    return np.stack(pixels), spent


def _network_ms(engine: Engine, pixels: NDArray[np.uint8], batch: int, rounds: int) -> list[float]:
    """Return the milliseconds per image of every batch."""
    times = []
    for first in [*range(0, len(pixels), batch)] * rounds:
        part = pixels[first : first + batch]
        begin = time.perf_counter()
        engine.embed(part)
        times.append((time.perf_counter() - begin) * 1000 / len(part))
    return times


def _figures(
    read_ms: dict[str, list[float]], network_ms: Sequence[float], *, batch: int
) -> dict[str, Any]:
    stages = {**read_ms, "network": network_ms}
    spent = {f"{stage}_ms": spread(times) for stage, times in stages.items()}
    whole = sum(of_stage["p50"] for of_stage in spent.values())
    return {
        "batch": batch,
        **spent,
        "network_images_per_s": rounded(1000 / spent["network_ms"]["p50"]),
        "images_per_s": rounded(1000 / whole),
    }
