"""The shards of a collection: which image lives where, and all of them as one."""

from __future__ import annotations

import heapq
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from store import (
    Features,
    Hit,
    Image,
    Inserted,
    NewImage,
    Partial,
    Query,
    Shard,
    StoreError,
    StoreMismatch,
    StoreSpec,
    StoreVersionError,
)
from workers.errors import InvalidRequest, SettingsError, Unavailable, what_and_remedy

_ROW = re.compile(r"[0-9]{0,18}", re.ASCII)  # fits into 64 bits

logger = logging.getLogger(__name__)

T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True)
class Recent:
    """A page of images, the latest first.

    Attributes:
        next: Where the next page starts; ``None`` at the end.
    """

    images: list[Image]
    next: str | None


class Misfit(Unavailable):
    """The collection was built with another bundle, or by another version."""


class Shards:
    """The LMDB environments below a data directory, opened on first use.

    Every method raises :class:`Unavailable` when the store cannot do what it is asked.

    Args:
        count: Number of shards. An image's shard follows from its id, so this stays as it was
            when the collection was begun.

    Raises:
        SettingsError: The collection has another number of shards.
    """

    def __init__(self, root: Path, bundle: Bundle, *, count: int) -> None:
        self._root = root
        self._spec = StoreSpec(
            bundle_id=bundle.id,
            bits=bundle.bits,
            dims=bundle.dims,
            metric=bundle.metric,
            centres=bundle.centres,
        )
        self._open: dict[int, Shard] = {}
        self._lock = threading.Lock()
        self.count = count
        _check_count(root, count)

    def __getitem__(self, index: int) -> Shard:
        """Return a shard, open.

        Raises:
            Unavailable: It cannot be opened, or was built with another bundle.
        """
        with self._lock:
            if index not in self._open:
                with _translated():
                    self._open[index] = Shard.open(self._path(index), self._spec)
            return self._open[index]

    def of(self, image_id: str) -> Shard:
        """Return the shard that an image belongs to."""
        return self[self._index_of(image_id)]

    def insert(self, batch: Sequence[NewImage]) -> list[Inserted]:
        """Insert images, one durable transaction per shard; answers are in the batch's order."""
        return self._spread(batch, lambda image: image.id, Shard.insert)

    def delete(self, image_ids: Sequence[str]) -> list[bool]:
        """Delete images; tells of each whether it was there."""
        return self._spread(image_ids, lambda image_id: image_id, Shard.delete)

    def get(self, image_id: str) -> Image | None:
        """Return an image's record, or ``None``."""
        with _translated():
            return self.of(image_id).get(image_id)

    def vectors(self, image_id: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """Return an image's code, shape=(W,), and feature, shape=(D,), or ``None``."""
        with _translated():
            return self.of(image_id).vectors(image_id)

    def features(self, ids: NDArray[np.uint8]) -> Features:
        """Read the features of images in bulk, see :meth:`store.Shard.features`.

        Args:
            ids: shape=(M, 16).
        """
        numbers = ids[:, :4].copy().view(">u4")[:, 0] % self.count
        with _translated():
            parts = [self[index].features(ids[numbers == index]) for index in range(self.count)]
        there = np.zeros(len(ids), np.bool_)
        for index, part in enumerate(parts):
            there[numbers == index] = part.there
        order = np.argsort(np.argsort(numbers[there], kind="stable"))
        values, scales, squares = (
            np.concatenate(column)[order] for column in list(zip(*parts, strict=True))[1:]
        )
        return Features(there, values, scales, squares)

    def images(self) -> int:
        """Return how many images there are."""
        with _translated():
            return sum(self[index].count() for index in range(self.count))

    def search(self, index: int, query: Query, *, group: int, groups: int) -> Partial:
        """Search one group of one shard's buckets, see :meth:`store.Shard.search`."""
        with _translated():
            return self[index].search(query, group=group, groups=groups)

    def hits(self, answer: Partial) -> list[Hit]:
        """Read the records of a merged answer; images that were deleted since are left out."""
        numbers = [self._index_of(name) for name in answer.names()]
        of_all: list[Hit] = []
        for index in sorted(set(numbers)):
            own = np.array([number == index for number in numbers])
            part = Partial(
                ids=answer.ids[own], distances=answer.distances[own], hamming=answer.hamming[own]
            )
            with _translated():
                of_all += self[index].hits(part)
        return sorted(of_all, key=lambda hit: (hit.distance, hit.id))

    def labels(self) -> dict[str, int]:
        """Return how many images have each label, the most frequent first."""
        counts: Counter[str] = Counter()
        with _translated():
            for index in range(self.count):
                counts.update(self[index].labels())
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))

    def recent(self, limit: int, before: str | None = None) -> Recent:
        """Return a page of the latest images.

        Args:
            limit: Most images to return.
            before: ``next`` of the page before.

        Raises:
            InvalidRequest: ``before`` is not such a value.
        """
        cursors = self._cursors(before)
        with _translated():
            pages = [
                [(index, image) for image in self[index].recent(limit, cursors[index])]
                for index in range(self.count)
            ]
        merged = heapq.merge(*pages, key=lambda entry: -entry[1].added_at)
        taken = [entry for entry, _ in zip(merged, range(limit), strict=False)]
        for index, image in taken:
            cursors[index] = image.row
        more = len(taken) == limit
        return Recent([image for _, image in taken], _joined(cursors) if more else None)

    def check_fit(self) -> None:
        """Open all shards that can be opened; what is damaged shows when it is used.

        Raises:
            Misfit: The collection was built with another bundle, or by another version.
        """
        for index in range(self.count):
            try:
                self[index]
            except Misfit:
                raise
            except Unavailable as error:
                logger.warning("Shard %d cannot be opened: %s", index, error)

    def close(self) -> None:
        """Close all shards."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _spread(
        self,
        entries: Sequence[T],
        id_of: Callable[[T], str],
        act: Callable[[Shard, list[T]], Sequence[A]],
    ) -> list[A]:
        """Act on entries shard by shard; the answers come in the order of the entries."""
        places: dict[int, list[int]] = {}
        for place, entry in enumerate(entries):
            places.setdefault(self._index_of(id_of(entry)), []).append(place)
        answers: dict[int, A] = {}
        for index, of_shard in places.items():
            with _translated():
                given = act(self[index], [entries[place] for place in of_shard])
            answers.update(zip(of_shard, given, strict=True))
        return [answers[place] for place in range(len(entries))]

    def _path(self, index: int) -> Path:
        return self._root / f"{index}-of-{self.count}"

    def _index_of(self, image_id: str) -> int:
        return int(image_id[:8], 16) % self.count

    def _cursors(self, before: str | None) -> list[int | None]:
        if before is None:
            return [None] * self.count
        parts = before.split(".")
        cursors = [int(part) if part else None for part in parts if _ROW.fullmatch(part)]
        if len(parts) != self.count or len(cursors) != self.count:
            raise InvalidRequest(
                f"{before[:40]!r} is not a place in the list.",
                remedy="Use the `next` of the page before.",
            )
        return cursors


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (StoreMismatch, StoreVersionError) as error:
        what, remedy = what_and_remedy(error)
        raise Misfit(what, remedy=remedy, code="store") from error
    except StoreError as error:
        what, remedy = what_and_remedy(error)
        raise Unavailable(what, remedy=remedy, code="store") from error


def _joined(cursors: Sequence[int | None]) -> str:
    return ".".join("" if cursor is None else str(cursor) for cursor in cursors)


def _check_count(root: Path, count: int) -> None:
    found = {path.name.partition("-of-")[2] for path in root.glob("*-of-*")} - {str(count)}
    if found:
        present = found.pop()
        raise SettingsError(
            f"The collection at {root} was made with LOOKALIKE_SHARDS={present}, "
            f"and now it is {count}.",
            remedy=f"Set LOOKALIKE_SHARDS={present}, or begin a new collection in another folder.",
        )
