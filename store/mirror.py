"""The codes of all images in the memory of this process, sorted by bucket.

A search looks at tens of thousands of codes. To copy them out of LMDB's pages takes longer than
to compare them; here they lie together, 20 bytes for each of 128 bits. The mirror is brought up
to date by each search that finds the store changed: it reads the rows that are new and the log
of deletions. What it gives is exactly what the buckets of the snapshot hold.

New images are a run of their own, sorted by bucket. A run that is no longer much smaller than
the one before is merged with it, as in a log-structured merge tree (O'Neil et al., 1996), so
that there are few runs and large ones are seldom copied.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from store.codes import rows_of_words
from store.errors import StoreError
from store.kernels import Pieces, gather, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from store.filing import Keys
    from store.kernels import Codes, Nearest
    from store.snapshot import Snapshot

Look = Callable[["Snapshot"], None]

MOST_BYTES = 1 << 30
"""Collections whose codes would take more are searched in LMDB's pages."""

FED_ROWS = 1 << 16
"""More new rows than that are not read one by one: the mirror is made anew."""

_RATIO = 8
"""A run is at least so many times as large as the next."""

_ROW_BYTES = 4

_WORTH_ASKING = 4
"""A process that searches a large store only once or twice is not made to read all its codes."""

_SMALL = 1 << 16
"""Up to so many images that takes no time."""


class Position(NamedTuple):
    """What a mirror has seen; each number only grows."""

    generation: int
    next_row: int
    deletions: int


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Codes sorted by bucket, and by row within a bucket.

    Attributes:
        keys: Buckets, ascending, shape=(M,), dtype=uint32.
        starts: Where each begins, and the end, shape=(M+1,), dtype=int64.
        words: Codes, filled up to words, shape=(V, N), dtype=uint64.
        rows: shape=(N,), dtype=uint32, or int64 where that is too small.
        dead: Deleted ones, shape=(N,), dtype=bool; None where there are none.
    """

    keys: NDArray[np.uint32]
    starts: NDArray[np.int64]
    words: NDArray[np.uint64]
    rows: NDArray[Any]
    dead: NDArray[np.bool_] | None

    def __len__(self) -> int:
        """Return N."""
        return len(self.rows)

    def pieces(self, keys: NDArray[np.uint32]) -> Pieces:
        """Return the pieces that are in some buckets, shape=(M,), ascending."""
        buckets = np.searchsorted(self.keys, keys)
        buckets = buckets[self.keys[np.minimum(buckets, len(self.keys) - 1)] == keys]
        starts, ends = self.starts[buckets], self.starts[buckets + 1]
        return Pieces(self.words, self.rows, self.dead, starts, ends)


class State(NamedTuple):
    """The mirror at one position; it is never changed, only replaced."""

    position: Position
    runs: tuple[Run, ...]


class Mirror:
    """The mirror of one shard, shared by the threads of a process.

    That of a large store is made by a thread of its own; meanwhile searches read the buckets.

    Args:
        keys: How codes are filed.
        read: Calls a function with a snapshot of the shard.
        most_bytes: Size above which there is no mirror.
    """

    def __init__(
        self, keys: Keys, read: Callable[[Look], None], *, most_bytes: int = MOST_BYTES
    ) -> None:
        self._keys = keys
        self._read = read
        self._most_bytes = most_bytes
        self._state: State | None = None
        self._asked = 0
        self._making: threading.Thread | None = None
        self._lock = threading.Lock()

    def bucket_codes(self, store: Snapshot, keys: NDArray[np.uint32]) -> Codes | None:
        """Return the images of some buckets, as `Snapshot.bucket_codes` does.

        Args:
            store: What is searched.
            keys: shape=(M,), dtype=uint32, ascending.

        Returns:
            None where the snapshot is older than the mirror, the store too large for one, or
            one not worth while yet.
        """
        state = self._worth_having(store)
        return None if state is None else gather(_pieces(state, keys), store.code_words)

    def nearest(
        self,
        store: Snapshot,
        keys: NDArray[np.uint32],
        code: NDArray[np.uint64],
        wanted: int | None,
    ) -> Nearest | None:
        """Return the nearest codes of some buckets, as `Snapshot.nearest_codes` does.

        Args:
            store: What is searched.
            keys: shape=(M,), dtype=uint32, ascending.
            code: Filled up to words, shape=(V,), dtype=uint64.
            wanted: How many; None for all.
        """
        state = self._worth_having(store)
        if state is None:
            return None
        return nearest(_pieces(state, keys), code, wanted)

    def begin(self, store: Snapshot) -> None:
        """Have the mirror made; nothing where the store is too large for one."""
        self._asked = max(self._asked, _WORTH_ASKING)
        self._at(store)

    def wait(self) -> None:
        """Wait until it is made; never within a read, for which whoever makes it may wait."""
        if self._making is not None:
            self._making.join()

    def _worth_having(self, store: Snapshot) -> State | None:
        self._asked += 1
        if self._state is None and self._asked < _WORTH_ASKING and store.count() > _SMALL:
            return None
        return self._at(store)

    def _at(self, store: Snapshot) -> State | None:
        position = _position(store)
        state = self._state
        if state is not None and state.position == position:
            return state
        with self._lock:
            state = self._state
            if state is not None and any(
                seen > now for seen, now in zip(state.position, position, strict=True)
            ):
                return None
            if state is None or state.position != position:
                self._state = self._brought_up(store, state, position)
            return self._state

    def _brought_up(
        self, store: Snapshot, state: State | None, position: Position
    ) -> State | None:
        if store.count() * (store.code_words * 8 + _ROW_BYTES) > self._most_bytes:
            return None
        if state is None or not _can_follow(store, state.position, position):
            return self._made(store)
        runs = list(state.runs)
        if position.next_row > state.position.next_row:
            runs.append(self._newest(store, state.position.next_row, position.generation))
        runs = _without(runs, store.deleted_since(state.position.deletions))
        return State(position, _merged(runs))

    def _made(self, store: Snapshot) -> State | None:
        """Read all codes, or have a thread do so where that takes a while."""
        if store.count() <= _SMALL:
            return _whole(store)
        if self._making is None or not self._making.is_alive():
            self._making = threading.Thread(target=self._make, name="store-mirror")
            self._making.start()
        return None

    def _make(self) -> None:
        # Whatever is wrong, the next search meets it too and can tell somebody.
        with suppress(StoreError):
            self._read(self._take)

    def _take(self, store: Snapshot) -> None:
        state = _whole(store)
        with self._lock:
            if self._state is None:
                self._state = state

    def _newest(self, store: Snapshot, first_row: int, generation: int) -> Run:
        """Return the images from a row on, as a run."""
        rows, codes = store.codes_from(first_row)
        keys, _ = self._keys.of(store, generation).buckets.file(codes)
        return _run(keys, rows, rows_of_words(codes))


def _can_follow(store: Snapshot, seen: Position, now: Position) -> bool:
    """Tell whether what happened since can be read from the store."""
    return (
        seen.generation == now.generation
        and now.next_row - seen.next_row <= FED_ROWS
        and store.deletions_kept_from() <= seen.deletions
    )


def _position(store: Snapshot) -> Position:
    return Position(
        store.number("generation"), store.number("next_row"), store.number("deletions")
    )


def _whole(store: Snapshot) -> State:
    """Read all buckets; they come sorted."""
    keys, codes = store.stored_bucket_codes(store.directory().keys)
    run = _sorted_run(keys, _small(codes.rows), np.ascontiguousarray(codes.words.T))
    return State(_position(store), _merged([run]))


def _run(keys: NDArray[np.uint32], rows: NDArray[np.int64], words: NDArray[np.uint64]) -> Run:
    """Sort images, shape=(N,) and (N, V), whose rows ascend."""
    order = np.argsort(keys, kind="stable")
    return _sorted_run(keys[order], _small(rows[order]), np.ascontiguousarray(words[order].T))


def _sorted_run(
    keys: NDArray[np.uint32],
    rows: NDArray[Any],
    words: NDArray[np.uint64],
) -> Run:
    occupied, starts = np.unique(keys, return_index=True)
    return Run(occupied, np.append(starts, len(keys)).astype(np.int64), words, rows, None)


def _small(rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return rows as uint32 where they fit."""
    fits = len(rows) == 0 or int(rows.max()) <= np.iinfo(np.uint32).max
    return rows.astype(np.uint32 if fits else np.int64)


def _merged(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Join the last runs until each is much larger than the next, and drop empty ones."""
    kept = [run for run in runs if len(run)]
    while len(kept) > 1 and len(kept[-2]) < _RATIO * len(kept[-1]):
        newer, older = kept.pop(), kept.pop()
        kept.append(_joined(older, newer))
    return tuple(kept)


def _joined(older: Run, newer: Run) -> Run:
    """Join two runs, without what is dead; rows of the newer one are larger."""
    living = [slice(None) if run.dead is None else ~run.dead for run in (older, newer)]
    pairs = list(zip((older, newer), living, strict=True))
    keys = np.concatenate([_keys_of(run)[alive] for run, alive in pairs])
    rows = np.concatenate([run.rows[alive] for run, alive in pairs]).astype(np.int64)
    words = np.concatenate([run.words[:, alive] for run, alive in pairs], axis=1)
    return _run(keys, rows, words.T)


def _keys_of(run: Run) -> NDArray[np.uint32]:
    """Return the bucket of each code, shape=(N,)."""
    return np.repeat(run.keys, np.diff(run.starts))


def _without(runs: Sequence[Run], gone: NDArray[np.int64]) -> list[Run]:
    """Mark deleted images, given as bucket and row: shape=(G, 2), dtype=int64."""
    changed = list(runs)
    for place, run in enumerate(runs if len(gone) else ()):
        found = [at for key, row in gone.tolist() if (at := _find(run, key, row)) is not None]
        if found:
            dead = np.zeros(len(run), np.bool_) if run.dead is None else run.dead.copy()
            dead[found] = True
            changed[place] = replace(run, dead=dead)
    return changed


def _find(run: Run, key: int, row: int) -> int | None:
    bucket = int(np.searchsorted(run.keys, key))
    if bucket == len(run.keys) or run.keys[bucket] != key:
        return None
    start, end = run.starts[bucket : bucket + 2].tolist()
    at = start + int(np.searchsorted(run.rows[start:end], row))
    return at if at < end and run.rows[at] == row else None


def _pieces(state: State, keys: NDArray[np.uint32]) -> list[Pieces]:
    return [run.pieces(keys) for run in state.runs]
