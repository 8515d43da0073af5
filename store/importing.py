"""Bringing exported images, or vectors that were computed elsewhere, into a collection.

What is there stays: an image that is known gains the sources and labels that it lacks, and
nothing else changes. So importing twice, or once more after a `kill -9`, is the same as once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store import writing
from store.environment import translated
from store.errors import StoreMismatch, TransferError
from store.layout import seal_features
from store.spec import Image, NewImage, StoreSpec
from store.transfer import Chunk, Header, Progress, format_of
from store.values import restore

if TYPE_CHECKING:
    from store.shard import Shard
    from store.snapshot import Snapshot

NAMED_ROWS = 100
"""Rows that cannot be imported are named up to here, and counted all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of the images of a file.

    Attributes:
        path: The file.
        images: How many it has.
        added: Of these, images that are new.
        enriched: Images that were there and have gained sources or labels.
        unchanged: Images that were there.
        refused: Images that cannot be stored.
        problems: A sentence for each of the first of those.
    """

    path: Path
    images: int
    added: int
    enriched: int
    unchanged: int
    refused: int
    problems: tuple[str, ...]


Open = Callable[[StoreSpec | None], AbstractContextManager[Sequence["Shard"]]]
"""Opens the shards of a collection; makes them for the spec of the file if there are none."""


def import_images(
    path: Path | str, opening: Open, *, progress: Progress = lambda _done, _of: None
) -> Imported:
    """Store the images of a file.

    Args:
        path: Ends with .npz or .parquet; see `store.npz` and `store.parquet`.
        opening: Opens the shards; an image belongs to the one that its id says.
        progress: Told of each chunk.

    Raises:
        TransferError: The file cannot be read.
        StoreMismatch: It belongs to another bundle, or its vectors have another length.
        StoreFull: There is no room; what was stored before stays.
    """
    source = Path(path)
    if not source.is_file():
        raise TransferError(f"there is no file {source}; check the path")
    with translated(source), format_of(source).reading(source) as reader:
        header: Header = reader.header
        chunks = reader.chunks()
        # A file whose first images cannot be read is to begin no collection.
        first = list(islice(chunks, 1))
        with opening(header.spec) as shards:
            _insist_on_match(source, header.spec, shards[0].spec)
            counts = _Counts()
            for chunk in chain(first, chunks):
                _insist_on_lengths(source, chunk, shards[0].spec)
                _take_in(shards, chunk, counts)
                progress(counts.done, header.count)
    return Imported(
        path=source,
        images=counts.done,
        added=counts.added,
        enriched=counts.enriched,
        unchanged=counts.done - counts.added - counts.enriched - counts.refused,
        refused=counts.refused,
        problems=tuple(counts.problems),
    )


def home_of(identity: str, count: int) -> int:
    """Return the number of the shard that an image belongs to; a malformed id is at home in 0."""
    try:
        return int(identity[:8], 16) % count
    except ValueError:
        return 0


class _Counts:
    """What has become of the images so far."""

    def __init__(self) -> None:
        self.done = self.added = self.enriched = self.refused = 0
        self.problems: list[str] = []

    def refuse(self, image: Image, error: ValueError) -> None:
        self.refused += 1
        if len(self.problems) < NAMED_ROWS:
            self.problems.append(f"row {image.row}, image {image.id[:40]!r}: {error}")


def _take_in(shards: Sequence[Shard], chunk: Chunk, counts: _Counts) -> None:
    homes = np.array([home_of(image.id, len(shards)) for image in chunk.images])
    for number, shard in enumerate(shards):
        places = np.flatnonzero(homes == number)
        if len(places):
            _store(shard, _part(chunk, places), counts)
    counts.done += len(chunk.images)


def _part(chunk: Chunk, places: Any) -> Chunk:
    images = [chunk.images[place] for place in places.tolist()]
    scales = None if chunk.scales is None else chunk.scales[places]
    return Chunk(images, chunk.codes[places], chunk.values[places], scales)


def _store(shard: Shard, chunk: Chunk, counts: _Counts) -> None:
    try:
        prepared = _prepared(shard, chunk)
    except ValueError as error:
        if len(chunk.images) == 1:
            counts.refuse(chunk.images[0], error)
            return
        # Halves of halves find the bad ones among many good ones.
        middle = len(chunk.images) // 2
        _store(shard, _part(chunk, np.arange(middle)), counts)
        _store(shard, _part(chunk, np.arange(middle, len(chunk.images))), counts)
        return
    added, enriched = shard._write(lambda store: _insert(shard, store, prepared, chunk.images))
    counts.added += added
    counts.enriched += enriched


def _prepared(shard: Shard, chunk: Chunk) -> writing.Prepared:
    """Validate images, and take values that were stored as they are.

    Raises:
        ValueError: One of them cannot be stored.
    """
    stored = chunk.scales is not None
    floats = restore(chunk.values, chunk.scales) if chunk.scales is not None else chunk.values
    new = [
        _new_image(image, code, feature)
        for image, code, feature in zip(chunk.images, chunk.codes, floats, strict=True)
    ]
    prepared = writing.prepare(new, shard.spec, shard._keys)
    if not stored or chunk.scales is None:
        return prepared
    if not ((chunk.scales >= 0).all() and (chunk.values >= -127).all()):
        raise ValueError("expected values from -127 to 127, and a scale of at least 0")
    heads = prepared.heads.copy()
    heads["scale"] = chunk.scales
    wide = chunk.values.astype(np.float32)
    heads["square"] = np.vecdot(wide, wide, dtype=np.float64)
    values = np.ascontiguousarray(chunk.values)
    seal_features(heads, values)
    return replace(prepared, heads=heads, values=values)


def _new_image(image: Image, code: Any, feature: Any) -> NewImage:
    if not (isinstance(image.added_at, (int, float)) and np.isfinite(image.added_at)):
        raise ValueError(f"expected a time in Unix seconds, got {image.added_at!r}")
    texts = (*image.sources, *image.labels, image.origin, image.format)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("expected text as sources, labels, origin and format")
    return NewImage(
        id=image.id,
        code=code,
        feature=feature,
        source=image.sources[0],
        origin=image.origin,
        added_at=float(image.added_at),
        width_px=int(image.width_px),
        height_px=int(image.height_px),
        format=image.format,
        size_bytes=int(image.size_bytes),
        labels=image.labels,
    )


def _insert(
    shard: Shard, store: Snapshot, prepared: writing.Prepared, images: Sequence[Image]
) -> tuple[int, int]:
    """Insert, then add all sources and labels; return how many are new, and how many richer."""
    before = {name: _known(store, name) for name in prepared.names}
    writing.insert(store, prepared, shard._keys)
    for name, image in zip(prepared.names, images, strict=True):
        record = store.record_of(name)
        richer = replace(
            record.image,
            sources=_joined(record.image.sources, image.sources, writing.MOST_SOURCES),
            labels=_joined(record.image.labels, image.labels, writing.MOST_LABELS),
        )
        if richer != record.image:
            writing.put_again(store, richer, record)
    old = [(name, known) for name, known in before.items() if known is not None]
    enriched = sum(store.record_of(name).image != known for name, known in old)
    return len(before) - len(old), enriched


def _known(store: Snapshot, name: bytes) -> Image | None:
    return None if store.row_of_bytes(name) is None else store.record_of(name).image


def _joined(there: tuple[str, ...], more: tuple[str, ...], most: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*there, *more)))[:most]


def _insist_on_match(path: Path, found: StoreSpec | None, wanted: StoreSpec) -> None:
    if found is None:
        return
    for name in ("bundle_id", "bits", "dims", "metric"):
        there, here = getattr(found, name), getattr(wanted, name)
        if there != here:
            raise StoreMismatch(
                f"{path} was exported from a collection of {name} {there}, and this one has "
                f"{here}: take the same bundle, or ingest the images again"
            )


def _insist_on_lengths(path: Path, chunk: Chunk, spec: StoreSpec) -> None:
    for what, found, wanted in (
        ("codes", chunk.codes.shape[1:], (spec.code_bytes,)),
        ("features", chunk.values.shape[1:], (spec.dims,)),
    ):
        if found != wanted:
            raise StoreMismatch(
                f"{path} has {what} of shape {found}, and this collection of {wanted}: "
                "compute them with its bundle"
            )
