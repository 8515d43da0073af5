"""Features of labelled images, computed once and kept."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.engine import Engine
from models.errors import ImageError
from models.images import upright_rgb
from models.labelled.corpus import Corpus
from models.labelled.kept import Kept, Writer
from models.labelled.pictures import MAX_PIXELS, no_warnings, read_picture
from models.labelled.skipped import Skipped, nothing_readable
from models.labelled.views import View, unchanged
from models.progress import progress

__all__ = ["Extracted", "Skipped", "extract"]

_BATCH = 64


@dataclass(frozen=True)
class Extracted:
    """What a network says of a corpus.

    Attributes:
        corpus: The images that could be read, N of them.
        features: shape=(N, D), dtype=float32; where a cache was given they stay on disk until
            they are looked at.
        latent: shape=(N, B), dtype=float32; likewise.
        skipped: The images that could not be read, with the reason.
    """

    corpus: Corpus
    features: NDArray[np.float32]
    latent: NDArray[np.float32]
    skipped: tuple[Skipped, ...]


def extract(
    corpus: Corpus,
    engine: Engine,
    *,
    cache: Path | None,
    view: View = unchanged,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Extracted:
    """Compute the features of every image of a corpus, or read them from the cache.

    The memory needed does not grow with the corpus. An extraction that was killed goes on where
    it was.

    Args:
        corpus: The images.
        engine: The network.
        cache: Folder for the results, made if it does not exist; None keeps nothing. Another
            bundle, list, size or date of a file, view or seed is computed anew.
        view: Applied to every picture before the network sees it.
        seed: Together with an image's place it fixes what `view` draws.
        max_pixels: A picture with more is skipped.

    Raises:
        CorpusError: None of the images can be read.
        CacheError: The results cannot be written; nothing half-written is left.
        EngineError: The network failed.
    """
    if cache is not None:
        key = _key(corpus, engine, view, seed, max_pixels)
        kept = _kept(corpus, engine, cache / key, view, seed, max_pixels)
        return _extracted(corpus, kept)
    with tempfile.TemporaryDirectory(prefix="lookalike-features-") as scratch:
        kept = _kept(corpus, engine, Path(scratch) / "all", view, seed, max_pixels)
        return _extracted(corpus, kept.in_memory())


def _extracted(corpus: Corpus, kept: Kept) -> Extracted:
    skipped = tuple(Skipped(corpus.paths[row], why) for row, why in kept.skipped.items())
    if len(kept.features) == 0:
        raise nothing_readable(corpus.root, skipped)
    readable = [row for row in range(len(corpus)) if row not in kept.skipped]
    return Extracted(corpus.take(readable), kept.features, kept.latent, skipped)


def _key(corpus: Corpus, engine: Engine, view: View, seed: int, max_pixels: int) -> str:
    # What the features depend on: neither the bundle's name nor its centres.
    network = replace(engine.bundle, name="", centres=None).id
    how = f"{type(engine).__name__} {network} {view.__qualname__} {seed} {max_pixels}"
    digest = hashlib.sha256(how.encode())
    for path in corpus.paths:
        digest.update(f"\n{path.absolute()} {_stamp(path)}".encode(errors="surrogateescape"))
    return f"{corpus.root.name}-{view.__qualname__}-{digest.hexdigest()[:12]}"


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _kept(
    corpus: Corpus, engine: Engine, target: Path, view: View, seed: int, max_pixels: int
) -> Kept:
    bundle = engine.bundle
    with Writer(target, count=len(corpus), dims=bundle.dims, bits=bundle.bits) as writer:
        if writer.begin < len(corpus):
            reader = _Reader(corpus, engine, view, seed, max_pixels)
            _fill(writer, reader, _title(corpus, view))
    return Kept.open(target)


def _title(corpus: Corpus, view: View) -> str:
    name = f"features of {corpus.root.name}"
    return name if view is unchanged else f"{name}, {view.__qualname__}"


class _Reader:
    """Reads pictures as the network wants them."""

    def __init__(
        self, corpus: Corpus, engine: Engine, view: View, seed: int, max_pixels: int
    ) -> None:
        self.corpus, self.engine = corpus, engine
        self.shape = (engine.bundle.preprocess.input_px,) * 2 + (3,)
        self._view, self._seed, self._max_pixels = view, seed, max_pixels

    def pixels(self, row: int) -> NDArray[np.uint8] | str:
        """Return a picture as `Engine.embed` takes it, or why it cannot be read."""
        preprocess, path = self.engine.bundle.preprocess, self.corpus.paths[row]
        # Views are made of the whole picture; what is only shrunk may be decoded smaller.
        min_side_px = preprocess.min_side_px if self._view is unchanged else 0
        try:
            picture = read_picture(path, max_pixels=self._max_pixels, min_side_px=min_side_px)
            seen = self._view(picture, np.random.default_rng([self._seed, row]))
            return preprocess.pixels(upright_rgb(seen))
        except ImageError as error:
            return str(error)


def _fill(writer: Writer, reader: _Reader, name: str) -> None:
    total = len(reader.corpus)
    nothing = np.empty((0, *reader.shape), np.uint8)
    with (
        no_warnings(),
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        progress(total=total, begin=writer.begin, title=name) as bar,
    ):
        for found in _batches(pool, reader, range(writer.begin, total)):
            pixels = [each for each in found.values() if not isinstance(each, str)]
            embedding = reader.engine.embed(np.stack(pixels) if pixels else nothing)
            skipped = {row: each for row, each in found.items() if isinstance(each, str)}
            writer.add(len(found), embedding.features, embedding.latent, skipped)
            bar.update(len(found))


def _batches(
    pool: ThreadPoolExecutor, reader: _Reader, rows: range
) -> Iterator[dict[int, NDArray[np.uint8] | str]]:
    """Yield batches by row; the next one is decoded while the network runs on this one."""
    before: dict[int, Future[NDArray[np.uint8] | str]] = {}
    for start in range(0, len(rows), _BATCH):
        coming = {row: pool.submit(reader.pixels, row) for row in rows[start : start + _BATCH]}
        if before:
            yield {row: future.result() for row, future in before.items()}
        before = coming
    yield {row: future.result() for row, future in before.items()}
