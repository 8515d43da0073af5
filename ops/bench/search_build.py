"""Collections to search in: built once for their parameters, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from models.centres import learn_centres
from ops.bench.figures import rounded
from ops.bench.search_ask import Vectors, read_queries, write_vectors
from ops.bench.search_data import Codes, Source
from ops.bench.search_names import BLOCK
from ops.bench.search_truth import FeatureTruth
from ops.bench.synthetic import images_of
from ops.cli.console import Console
from store import Shard, StoreSpec
from store.layout import FORMAT

VERSION = 2
"""Raised when something is built otherwise; older collections are then left alone."""

_MADE = "made.json"
_LONGEST_KEY_BITS = 24
_FEWEST_CENTRES, _MOST_CENTRES, _IMAGES_PER_CENTRE = 256, 8_192, 1_024
_EXAMPLES_PER_CENTRE, _ROUNDS = 16, 5


@dataclass(frozen=True)
class Collection:
    """A store that was built, and what it was built from.

    Attributes:
        folder: Holds the store, codes, queries and the truth about them.
        source: What is stored.
        facts: Figures of the build.
    """

    folder: Path
    source: Source
    facts: dict[str, Any]

    @property
    def shard(self) -> Path:
        """Folder of the store."""
        return self.folder / "shard"

    @cached_property
    def codes(self) -> Codes:
        """Every stored code, shape=(N, W), dtype=uint8."""
        codes: Codes = np.load(self.folder / "codes.npy")
        return codes

    @cached_property
    def centres(self) -> Codes:
        """Centre codes, shape=(M, W), dtype=uint8, also where the store has no use for them."""
        centres: Codes = np.load(self.folder / "centres.npy")
        return centres

    @cached_property
    def queries(self) -> Vectors:
        """What is searched with."""
        return read_queries(self.folder)

    def at(self, rows: NDArray[Any]) -> Vectors:
        """Return some of what is stored."""
        return self.source.at(rows, self.folder)


def open_collection(
    source: Source, cache: Path, console: Console, *, batch: int = BLOCK
) -> Collection:
    """Return the collection of a source, building it if that was not done before.

    It is built under another name and then renamed, so one that was interrupted is never taken
    for whole; what is left of it goes before the next is built.

    Args:
        source: Its images.
        cache: Folder of all collections.
        console: Told how far it is.
        batch: Images of a commit, at most `BLOCK`.
    """
    folder = cache / _name(source, batch)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{folder.name}.lock"):
        if not (folder / _MADE).exists():
            _build(source, folder, console, batch)
    return Collection(folder, source, json.loads((folder / _MADE).read_text()))


def disk_bytes(folder: Path) -> int:
    """Return the space that the files of a folder take, holes not counted."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _name(source: Source, batch: int) -> str:
    asked = {"n": source.n, "dims": source.dims, "bits": source.bits, **source.key()}
    if batch != BLOCK:
        asked["batch"] = batch
    text = json.dumps({**asked, "version": VERSION, "format": FORMAT}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{source.n}x{source.dims}-{source.bits}bits-{digest}"


def _build(source: Source, folder: Path, console: Console, batch: int) -> None:
    making = folder.with_name(f".{folder.name}.making")
    for left_over in (making, folder):
        shutil.rmtree(left_over, ignore_errors=True)
    making.mkdir()
    begin = time.perf_counter()
    with console.step(f"building {source.n:,} images of {source.dims} x {source.bits} bits"):
        facts = _fill(source, making, batch)
        facts["build_s"] = rounded(time.perf_counter() - begin)
        (making / _MADE).write_text(json.dumps(facts))
        making.rename(folder)


def _fill(source: Source, folder: Path, batch: int) -> dict[str, Any]:
    source.write(folder)
    queries = source.queries()
    write_vectors(folder / "queries.npz", queries)
    centres = _centres(source, folder)
    np.save(folder / "centres.npy", centres)
    truth = FeatureTruth(folder, queries.features, source.n)
    shape = (source.n, centres.shape[1])
    codes = np.lib.format.open_memmap(folder / "codes.npy", mode="w+", dtype="u1", shape=shape)
    spent = 0.0
    with Shard.open(folder / "shard", _spec(source, centres)) as shard:
        for first in range(0, source.n, BLOCK):
            rows = np.arange(first, min(first + BLOCK, source.n))
            block = source.at(rows, folder)
            codes[rows] = block.codes
            truth.add(rows, block.features)
            images = images_of(rows, block.codes, block.features)
            begin = time.perf_counter()
            for start in range(0, len(images), batch):
                shard.insert(images[start : start + batch])
            spent += time.perf_counter() - begin
    codes.flush()
    truth.finish()
    return {
        "batch": batch,
        "images_per_s": rounded(source.n / spent),
        "bytes_per_image": rounded(disk_bytes(folder / "shard") / source.n),
    }


def _spec(source: Source, centres: Codes) -> StoreSpec:
    long = source.bits > _LONGEST_KEY_BITS
    return StoreSpec(
        bundle_id=f"bench-{source.bits}",
        bits=source.bits,
        dims=source.dims,
        metric="cosine",
        centres=centres if long else None,
    )


def _centres(source: Source, folder: Path) -> Codes:
    """Learn a number of centres that grows with the images, as a retrained store would."""
    wanted = 2 ** round(np.log2(source.n / _IMAGES_PER_CENTRE))
    wanted = min(max(wanted, _FEWEST_CENTRES), _MOST_CENTRES)
    rng = np.random.default_rng(0)
    count = min(source.n, wanted * _EXAMPLES_PER_CENTRE)
    rows = np.sort(rng.choice(source.n, count, replace=False))
    parts = [
        source.at(rows[first : first + BLOCK], folder).codes for first in range(0, count, BLOCK)
    ]
    sample = np.concatenate(parts)
    wanted = min(wanted, max(1, len(np.unique(sample, axis=0)) // 4))
    return learn_centres(sample, wanted, bits=source.bits, rounds=_ROUNDS, seed=0)
