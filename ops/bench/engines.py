"""ONNX Runtime against real Caffe on one network, and the network in 8-bit integers, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.caffe.topologies import FEATURE, LATENT, deploy, random_weights
from models.catalogue import ensure_bundle
from models.engine import Engine
from models.engines import open_engine
from models.errors import ModelError
from models.importing import Named, import_caffe
from models.parity import random_pixels
from models.pictures import Pictures
from models.quantise import quantise_bundle
from ops.bench.figures import median, rounded, spread
from ops.bench.output import put
from ops.bench.photos import write_variants
from ops.bench.stack import scratch
from ops.cli.console import Console
from ops.cli.pixels import pixels_of
from workers.bundles import find_bundle
from workers.settings import Settings

ONNX, CAFFE, INT8 = "onnx", "caffe", "onnx_int8"

# The network that the engines are compared on where no bundle is named.
_TOPOLOGY, _BITS = "caffenet", 128
_MEAN = (104.0, 117.0, 123.0)
_SEED = 0
# From which the ranges of the integers are taken; speed does not depend on them.
_PHOTOS = 16


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        bundle: Name or directory, or ``None`` for CaffeNet with random weights.
        batches: Numbers of images that go through the network at once.
        threads: Numbers of threads of the network.
        rounds: Times that the engines take turns.
    """

    bundle: str | None
    batches: Sequence[int]
    threads: Sequence[int]
    rounds: int


@dataclass(frozen=True)
class Turn:
    """One batch on one engine: seconds on the clock, and of the processor."""

    wall_s: float
    cpu_s: float


def bench_engines(plan: Plan, console: Console) -> None:
    """Measure every batch size with every number of threads; one object each.

    An engine that cannot be had is left out, and the reason told.
    """
    settings = Settings.load()
    with scratch() as folder:
        bundle = _bundle(plan.bundle, settings, folder, console)
        left_out: dict[str, str] = {}
        variant = _variant(bundle, settings, folder, console, left_out)
        pixels = random_pixels(bundle, count=max(plan.batches), seed=_SEED)
        for threads in plan.threads:
            with ExitStack() as stack:
                engines = _opened(bundle, variant, threads, stack, left_out)
                for batch in plan.batches:
                    turns = take_turns(engines, pixels[:batch], rounds=plan.rounds)
                    asked = {"bundle": bundle.id, "threads": threads, "batch": batch}
                    told = {"rounds": plan.rounds, **figures(turns, batch), "left_out": left_out}
                    put(console, "engines", asked | told)


def take_turns(
    engines: Mapping[str, Engine], pixels: NDArray[np.uint8], *, rounds: int
) -> dict[str, list[Turn]]:
    """Let engines embed the same pixels in turns, after a round that does not count.

    The order changes with the round, so that none always follows the same.

    Args:
        engines: By name.
        pixels: shape=(N, input_px, input_px, 3), dtype=uint8.
        rounds: How often.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in engines}
    for engine in engines.values():
        engine.embed(pixels)
    for number in range(rounds):
        for name in _rotated(list(engines), number):
            wall, cpu = time.perf_counter(), time.process_time()
            engines[name].embed(pixels)
            turn = Turn(time.perf_counter() - wall, time.process_time() - cpu)
            turns[name].append(turn)
    return turns


def _rotated(names: list[str], by: int) -> list[str]:
    first = by % len(names)
    return names[first:] + names[:first]


def figures(turns: Mapping[str, Sequence[Turn]], batch: int) -> dict[str, Any]:
    """Return the speed of each engine, and ratios, each the median of the rounds' own.

    Args:
        turns: Of each engine, one a round.
        batch: Images of a turn.
    """
    return {
        "engines": {name: _speed(of_one, batch) for name, of_one in turns.items()},
        "ratios": {
            f"{fast}_to_{slow}": _ratio(turns[fast], turns[slow])
            for fast, slow in ((ONNX, CAFFE), (INT8, ONNX), (INT8, CAFFE))
            if fast in turns and slow in turns
        },
    }


def _speed(turns: Sequence[Turn], batch: int) -> dict[str, Any]:
    ms = spread([turn.wall_s * 1000 / batch for turn in turns])
    return {
        "images_per_s": rounded(1000 / ms["p50"]),
        "ms_per_image": ms,
        "cpu_ms_per_image": median([turn.cpu_s * 1000 / batch for turn in turns]),
    }


def _ratio(fast: Sequence[Turn], slow: Sequence[Turn]) -> dict[str, float]:
    """How many times as fast, on the clock and by the processor's time."""
    pairs = list(zip(fast, slow, strict=True))
    return {
        "wall": median([theirs.wall_s / ours.wall_s for ours, theirs in pairs]),
        "cpu": median([theirs.cpu_s / ours.cpu_s for ours, theirs in pairs]),
    }


def _bundle(name: str | None, settings: Settings, folder: Path, console: Console) -> Bundle:
    if name is not None:
        return find_bundle(settings, name, needs_code=False)
    with console.step("making CaffeNet with random weights"):
        return _random_caffenet(folder)


def _random_caffenet(folder: Path) -> Bundle:
    prototxt, weights = folder / "deploy.prototxt", folder / "weights.caffemodel"
    prototxt.write_text(deploy(_TOPOLOGY, bits=_BITS), encoding="utf-8")
    weights.write_bytes(random_weights(_TOPOLOGY, bits=_BITS, seed=_SEED))
    made = import_caffe(
        prototxt,
        weights,
        named=Named(f"{_TOPOLOGY}-{_BITS}", folder / "bundle", "l2"),
        feature=FEATURE,
        code=LATENT,
        pictures=Pictures(mean=_MEAN),
    )
    return ensure_bundle(str(made.path), cache_dir=folder / "cache")


def _variant(
    bundle: Bundle, settings: Settings, folder: Path, console: Console, left_out: dict[str, str]
) -> Bundle | None:
    """Make the network in 8-bit integers, where it can be had."""
    photos = write_variants(folder / "photos", wanted=_PHOTOS)
    try:
        return quantise_bundle(
            bundle, pixels_of(photos, bundle, settings, console), folder / "variant"
        )
    except ModelError as error:
        left_out[INT8] = str(error)
        return None


def _opened(
    bundle: Bundle,
    variant: Bundle | None,
    threads: int,
    stack: ExitStack,
    left_out: dict[str, str],
) -> dict[str, Engine]:
    engines: dict[str, Engine] = {}
    for name, engine, of in _contenders(bundle, variant):
        try:
            opened = open_engine(of, engine=engine, threads=threads)
        except ModelError as error:
            left_out[name] = str(error)
        else:
            engines[name] = stack.enter_context(opened)
    return engines


def _contenders(bundle: Bundle, variant: Bundle | None) -> Iterator[tuple[str, str, Bundle]]:
    yield ONNX, "onnx", bundle
    yield CAFFE, "caffe", bundle
    if variant is not None:
        yield INT8, "onnx", variant
