"""What must be true of a store, whatever happened to the processes that had it open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ops.drill.child import Tell, Violation, ask_child
from ops.drill.world import Held, State, World
from store import Hit, Image, Shard, hamming
from store.segments import FOLDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALL = 10**6
_HALF_STEP = 0.5 / 127 + 2**-22
"""Of a feature's largest value, and what float32 adds to it when it is multiplied out."""

_NEAR = 1e-3
"""Distances of an exact feature may differ by this share from what is computed here."""

_ROUGH = 0.02
"""And so may those of a feature that was rounded to bytes, which is not known here."""


def judge(
    folder: Path,
    world: World,
    parts: Sequence[Sequence[State]],
    rows: Mapping[int, int] | None = None,
) -> list[State]:
    """Judge a store in a process of its own.

    Args:
        folder: Of the store.
        world: Of the store.
        parts: What it may hold: for each part of the images the states it may be in.
        rows: The row of each image, if that is known.

    Returns:
        The state of each part.

    Raises:
        Violation: Something is wrong.
    """

    def work(tell: Tell) -> None:
        with world.open(folder) as shard:
            tell(bytes(insist(shard, world, parts, rows)))

    chosen = ask_child(work)
    return [states[number] for states, number in zip(parts, chosen, strict=True)]


def insist(
    shard: Shard,
    world: World,
    parts: Sequence[Sequence[State]],
    rows: Mapping[int, int] | None = None,
) -> list[int]:
    """Insist that a store is sound, and that it holds exactly what it must; see `judge`.

    Returns:
        Which of its states each part is in.
    """
    problems = shard.check().problems
    _insist(not problems, f"the check names {'; '.join(problems[:5])}")
    _insist_on_no_strays(shard)
    found = {world.names.index(image.id): image for image in _records(shard)}
    held = {n: Held(one.origin, one.sources, one.labels) for n, one in found.items()}
    chosen: list[int] = []
    expected: dict[int, Held] = {}
    for states in parts:
        chosen.append(_which(held, states))
        expected.update(states[chosen[-1]])
    if held != expected:
        raise Violation(f"it holds {_difference(held, expected)}")
    _insist_on_records(found, world, rows)
    _insist_on_answers(shard, world, sorted(found), _vectors(shard, world, sorted(found)))
    counted = Counter(label for one in expected.values() for label in one.labels)
    _insist(shard.labels() == counted, f"labels are {shard.labels()}, not {counted}")
    return chosen


def insist_on_hits(shard: Shard, world: World, number: int) -> None:
    """Insist that what a search finds is right, of a store that changes meanwhile."""
    answer = shard.search(world.query(number, k=_ALL))
    _insist(answer.complete, "a search of everything was not complete")
    for hit in shard.hits(answer):
        _insist_on_hit(world, number, hit)


def insist_on_names(folder: Path, wanted: set[str]) -> None:
    """Insist that nothing else is left in a folder."""
    strange = {path.name for path in folder.iterdir()} - wanted
    _insist(not strange, f"{folder} still holds {', '.join(sorted(strange))}")


def _insist_on_hit(world: World, number: int, hit: Hit) -> None:
    _insist(hit.id in world.names, f"a search found {hit.id}, which never existed")
    place = world.names.index(hit.id)
    bits = int(hamming(world.codes[number], world.codes[place][None])[0])
    _insist(hit.hamming == bits, f"{hit.id} is {hit.hamming} bits away, not {bits}")
    (apart,) = _distances(world, number, world.features[place][None])
    scale = 1 + float(np.linalg.norm(world.features[place])) * (world.spec.metric == "l2")
    _insist(
        abs(apart - hit.distance) < _ROUGH * scale,
        f"{hit.id} is at {hit.distance}, not {apart}",
    )


def _insist(holds: bool, told: str) -> None:
    if not holds:
        raise Violation(told)


def _records(shard: Shard) -> list[Image]:
    found = shard.recent(_ALL)
    rows = [image.row for image in found]
    _insist(rows == sorted(set(rows), reverse=True), f"rows are {rows}")
    _insist(len(found) == shard.count(), f"{shard.count()} images have {len(found)} rows")
    return found


def _which(held: Mapping[int, Held], states: Sequence[State]) -> int:
    """Return the state that a part is in; the last one where it is in none."""
    numbers = set().union(*states)
    part = {number: one for number, one in held.items() if number in numbers}
    fits = (number for number, state in enumerate(states) if state == part)
    return next(fits, len(states) - 1)


def _difference(held: Mapping[int, Held], expected: State) -> str:
    lost, extra = expected.keys() - held.keys(), held.keys() - expected.keys()
    both = held.keys() & expected.keys()
    other = {n: (held[n], expected[n]) for n in both if held[n] != expected[n]}
    return f"not the images {sorted(lost)}, also {sorted(extra)}, others: {other}"


def _insist_on_no_strays(shard: Shard) -> None:
    """Insist that no file is left over: the opening has cleared them away."""
    there = sorted(path.name for path in (shard.path / FOLDER).iterdir())
    needed = shard.stats().segments
    tidy = len(there) == needed and all(name.endswith(".segment") for name in there)
    _insist(tidy, f"{needed} segments have the files {there}")
    names = {path.name for path in shard.path.iterdir()}
    _insist(names == {"data.mdb", "lock.mdb", FOLDER}, f"there are {names}")


def _insist_on_records(
    found: Mapping[int, Image], world: World, rows: Mapping[int, int] | None
) -> None:
    for number, image in found.items():
        known = world.image(number, 0)
        for name in ("id", "added_at", "width_px", "height_px", "format", "size_bytes"):
            there, then = getattr(image, name), getattr(known, name)
            _insist(there == then, f"image {number}: {there}, not {then}")
    there_rows = {number: image.row for number, image in found.items()}
    _insist(rows in (None, there_rows), f"the rows are {there_rows}, not {rows}")


def _vectors(shard: Shard, world: World, numbers: Sequence[int]) -> NDArray[np.float64]:
    """Insist on codes and features, and return the features as they are stored."""
    stored = [np.empty((0, world.spec.dims))]
    for number in numbers:
        found = shard.vectors(world.names[number])
        if found is None:
            raise Violation(f"image {number} has a record and no vectors")
        known = world.features[number]
        step = np.abs(known).max() * _HALF_STEP
        if not np.array_equal(found[0], world.codes[number]):
            raise Violation(f"the code of {number} is {found[0]}, not {world.codes[number]}")
        if not (np.abs(found[1] - known) <= step).all():
            raise Violation(f"the feature of {number} is {found[1]}, not {known}")
        stored.append(found[1][None].astype(np.float64))
    return np.concatenate(stored)


def _insist_on_answers(
    shard: Shard, world: World, numbers: Sequence[int], stored: NDArray[np.float64]
) -> None:
    """Compare searches with distances from the stored features, shape=(N, D)."""
    there = {world.names[number] for number in numbers}
    for asked in {*numbers[:2], *numbers[-1:]}:
        answer = shard.search(world.query(asked, k=len(numbers)))
        found = dict(zip(answer.names(), answer.distances.tolist(), strict=True))
        _insist(found.keys() == there, f"a search found {found.keys() ^ there}, or did not")
        apart = _distances(world, asked, stored)
        got = np.array([found[world.names[number]] for number in numbers])
        wrong = np.abs(got - apart) > _NEAR * (1 + apart)
        _insist(not wrong.any(), f"distances are {got[wrong][:5]}, not {apart[wrong][:5]}")
        few = shard.search(world.query(asked, k=5, candidates=20)).names()
        _insist(set(few) <= there, f"a search found {set(few) - there}")
        _insist(len(few) == min(5, len(numbers)), f"a search found {len(few)} images")


def _distances(world: World, number: int, features: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distances of an image from features, shape=(N, D)."""
    asked, others = world.features[number].astype(np.float64), features.astype(np.float64)
    if world.spec.metric == "l2":
        return np.asarray(np.linalg.norm(others - asked, axis=1))
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(asked)
    return np.asarray(1 - others @ asked / lengths)
