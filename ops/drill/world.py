"""Images, what is done to them, and what a store must hold afterwards: a model in plain Python."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ops.drill.small import MAP_BYTES
from store import NewImage, Query, Shard, StoreSpec, pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = 3
"""As many processes may write at once; each changes images of its own."""

PART_IMAGES = 60

_VARIANTS = 3
"""Ways in which an image is delivered: origins, sources, labels."""

_LARGEST_CHANGE = 20
_BITS = (12, 20, 33, 64, 128)
_LONG_BITS = (33, 64, 128)
_DIMS = (8, 24, 64)


class Held(NamedTuple):
    """What a store knows of an image, apart from what is the same for all deliveries."""

    origin: str
    sources: tuple[str, ...]
    labels: tuple[str, ...]


State = Mapping[int, Held]
"""The images of a part that are in the store, by number."""


class Change(NamedTuple):
    """A batch that is inserted or deleted: which images, and how they are delivered."""

    inserted: bool
    numbers: tuple[int, ...]
    variant: int


@dataclass(frozen=True, eq=False)
class World:
    """Images that a store is made for.

    Attributes:
        spec: Of the store.
        features: shape=(N, D), dtype=float32.
        codes: shape=(N, W), dtype=uint8.
        names: Ids, N of them.
    """

    spec: StoreSpec
    features: NDArray[np.float32]
    codes: NDArray[np.uint8]
    names: tuple[str, ...]

    @classmethod
    def of(cls, seed: int, *, long_codes: bool) -> World:
        """Make up a world; the same one for the same seed."""
        chance, rng = drawn(seed), np.random.default_rng(seed)
        spec = StoreSpec(
            bundle_id="drill@0123456789ab",
            bits=chance.choice(_LONG_BITS if long_codes else _BITS),
            dims=chance.choice(_DIMS),
            metric=chance.choice(("cosine", "l2")),
        )
        count = PARTS * PART_IMAGES
        middles = rng.normal(size=(5, spec.dims))[rng.integers(0, 5, count)]
        features = (middles + 0.3 * rng.normal(size=middles.shape)).astype(np.float32)
        codes = pack(features @ rng.normal(size=(spec.dims, spec.bits)) > 0)
        names = (hashlib.sha256(b"%d of %d" % (i, seed)).hexdigest()[:32] for i in range(count))
        return cls(spec, features, codes, tuple(names))

    def open(self, folder: Path) -> Shard:
        """Open a store of this world, or create it."""
        return Shard.open(folder, self.spec, map_bytes=MAP_BYTES)

    def image(self, number: int, variant: int) -> NewImage:
        """Return an image as it is delivered."""
        held = delivered(number, variant)
        return NewImage(
            id=self.names[number],
            code=self.codes[number],
            feature=self.features[number],
            source=held.sources[0],
            origin=held.origin,
            added_at=1_700_000_000.0 + number,
            width_px=640 + number,
            height_px=480,
            format="JPEG",
            size_bytes=12_345 + number,
            labels=held.labels,
        )

    def query(self, number: int, **options: float | int | None) -> Query:
        """Return a search for an image."""
        wanted: dict[str, float | int | None] = {"k": 10, "candidates": None, **options}
        return Query(code=self.codes[number], feature=self.features[number], **wanted)  # type: ignore[arg-type]

    def centres(self, chance: Random) -> NDArray[np.uint8]:
        """Return a few codes to file by, shape=(M, W), all different."""
        chosen = chance.sample(range(len(self.codes)), chance.randrange(4, 16))
        centres: NDArray[np.uint8] = np.unique(self.codes[chosen], axis=0)
        return centres


def drawn(seed: int | str) -> Random:
    """Return what draws; nothing of it is a secret."""
    return Random(seed)  # noqa: S311


def delivered(number: int, variant: int) -> Held:
    """Return what a store holds of an image after its first delivery."""
    labels = ("odd" if number % 2 else "even", f"v{variant}")[: variant + 1]
    return Held(f"item-{number}-{variant}", (f"/photos/{number}-{variant}.jpg",), labels)


def plan(chance: Random, part: int, length: int, inserting: float) -> list[Change]:
    """Draw changes of one part.

    Args:
        chance: Where they come from.
        part: Its number.
        length: How many changes.
        inserting: Share of them that insert.
    """
    numbers = range(part * PART_IMAGES, (part + 1) * PART_IMAGES)
    return [
        Change(
            chance.random() < inserting,
            tuple(chance.sample(numbers, chance.randrange(1, _LARGEST_CHANGE + 1))),
            chance.randrange(_VARIANTS),
        )
        for _ in range(length)
    ]


def apply(shard: Shard, world: World, change: Change) -> list[bool]:
    """Do a change; return what the store says of each image."""
    if change.inserted:
        batch = [world.image(number, change.variant) for number in change.numbers]
        return [one.created for one in shard.insert(batch)]
    return shard.delete([world.names[number] for number in change.numbers])


def outcome(state: State, change: Change) -> list[bool]:
    """Return what a store that holds this must say of each image of a change."""
    if not change.inserted:
        return [number in state for number in change.numbers]
    new = {number: delivered(number, change.variant) for number in change.numbers}
    return [n not in state or state[n].origin == held.origin for n, held in new.items()]


def after(state: State, change: Change) -> State:
    """Return what the store holds after a change."""
    if not change.inserted:
        return {number: held for number, held in state.items() if number not in change.numbers}
    new = {number: delivered(number, change.variant) for number in change.numbers}
    return {
        **state,
        **{n: _met(state[n], held) if n in state else held for n, held in new.items()},
    }


def _met(known: Held, again: Held) -> Held:
    if known.origin == again.origin:
        return known
    return known._replace(
        sources=_joined(known.sources, again.sources), labels=_joined(known.labels, again.labels)
    )


def _joined(known: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*known, *more)))
