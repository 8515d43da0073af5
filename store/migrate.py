"""Bringing a store of format 1 to the format in use.

The new store is built in a folder beside the old one, with the old one's write lock held, and
takes its place once it is whole. Killed at any moment, it leaves the old store or the new one
where the store was; the next call removes what was half done, and starts over or finishes.

For the shard `shards/0-of-1` these folders are used, all on one file system:

| folder | holds |
|---|---|
| `shards/migrating/0-of-1` | the new store until it is whole, then for a moment the old one |
| `shards/replaced/0-of-1` | the old store until the new one was opened |
| `shards/format-1/0-of-1` | the old store for good, with `keep` |
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from store.converting import Progress, convert, needed_bytes
from store.datafile import DATA_FILE, inspect, page_problems
from store.environment import MAP_BYTES, Environment, translated
from store.errors import NotAStore, StoreDamaged, StoreError
from store.format1 import OLD_FORMAT, OldStore
from store.layout import FORMAT, read_format
from store.shard import Shard
from store.swapping import insist_on_no_others, insist_on_nobody, insist_on_room, swap

if TYPE_CHECKING:
    from store.layout import Txn

_DOING = "it is migrated"
_NAMED_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What became of a store.

    Attributes:
        path: Folder of the store.
        migrated: It had an earlier format; otherwise nothing was done.
        images: Images in it.
        left_out: A sentence for each image that was damaged.
        kept: Where the old store is, if it was to be kept.
    """

    path: Path
    migrated: bool
    images: int
    left_out: tuple[str, ...] = ()
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class _Places:
    """The folders of a migration."""

    current: Path
    building: Path
    replaced: Path
    kept: Path

    @classmethod
    def of(cls, path: Path) -> _Places:
        beside = (path.parent / name / path.name for name in ("migrating", "replaced", "format-1"))
        return cls(path, *beside)

    def tidy(self) -> None:
        """Remove the folders that are for all shards, as soon as none needs them."""
        for folder in (self.building.parent, self.replaced.parent):
            with suppress(OSError):
                folder.rmdir()


def migrate(
    path: Path | str,
    *,
    keep: bool = False,
    skip_damaged: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> Migration:
    """Bring a store to the format in use, with its rows, records and features as they are.

    Args:
        path: Folder of a shard that no process has open.
        keep: Whether to keep the old store, in `format-1` beside the shard.
        skip_damaged: Whether to leave out images that cannot be read.
        progress: Told of each batch.

    Raises:
        NotAStore: There is no store.
        StoreInUse: Another process has it open; it is named by its number.
        StoreFull: The disk has no room for a second store; how much is needed is named.
        StoreDamaged: Images cannot be read; they are named, and the store is as it was.
        StoreVersionError: The store has a newer format.
    """
    places = _Places.of(Path(path))
    with translated(places.current):
        _go_on(places)
        version = format_of(places.current)
        if version == OLD_FORMAT:
            left_out = _replace(places, progress, keep=keep, skip_damaged=skip_damaged)
        with Shard.open_existing(places.current) as shard:
            images = shard.count()
        kept = _put_away(places, keep=keep)
        places.tidy()
    if version != OLD_FORMAT:
        return Migration(path=places.current, migrated=False, images=images)
    return Migration(
        path=places.current, migrated=True, images=images, left_out=tuple(left_out), kept=kept
    )


def format_of(folder: Path) -> int:
    """Return the version of a store's format.

    Raises:
        NotAStore: There is no store.
        StoreDamaged: Its header cannot be read.
    """
    if not folder.is_dir() or inspect(folder) is None:
        raise NotAStore(f"there is no store in {folder}; check the path, or ingest first")
    env = Environment(folder, map_bytes=MAP_BYTES)
    try:
        return env.setup(_format)
    finally:
        env.close()


def _format(env: lmdb.Environment, txn: Txn) -> int:
    try:
        return read_format(txn, env.open_db(b"meta", txn, create=False))
    except lmdb.NotFoundError as error:
        raise NotAStore("the LMDB file holds no image store; take another path") from error


def _go_on(places: _Places) -> None:
    """Finish or clear away what a killed call left behind."""
    if not (places.current / DATA_FILE).exists() and (places.replaced / DATA_FILE).exists():
        # Only where names cannot be exchanged: killed between the two renames.
        whole = places.building if places.building.exists() else places.replaced
        whole.rename(places.current)
    if not places.building.exists():
        return
    if format_of(places.current) == FORMAT:
        places.replaced.parent.mkdir(exist_ok=True)
        places.building.rename(places.replaced)
    else:
        shutil.rmtree(places.building)


def _put_away(places: _Places, *, keep: bool) -> Path | None:
    """Keep or delete the old store; the new one has been opened."""
    if not places.replaced.exists():
        return None
    if not keep:
        shutil.rmtree(places.replaced)
        return None
    places.kept.parent.mkdir(exist_ok=True)
    return places.replaced.rename(places.kept)


def _replace(places: _Places, progress: Progress, *, keep: bool, skip_damaged: bool) -> list[str]:
    """Build the new store and put it in the place of the old one.

    Returns:
        A sentence for each image that was left out.
    """
    insist_on_nobody(places.current, _DOING)
    if keep and places.kept.exists():
        raise StoreError(f"{places.kept} is in the way; move it away, or keep nothing")
    env = Environment(places.current, map_bytes=MAP_BYTES)

    def work(handle: lmdb.Environment, txn: Txn) -> list[str]:
        # The transaction stores nothing; it keeps others from writing meanwhile.
        try:
            left_out = _build(places, handle, txn, progress)
            if left_out and not skip_damaged:
                raise StoreDamaged(_told(places.current, left_out))
            insist_on_no_others(places.current, _DOING)
        except BaseException:
            shutil.rmtree(places.building, ignore_errors=True)
            places.tidy()
            raise
        swap(places.building, places.current, places.replaced)
        return left_out

    try:
        return env.setup(work)
    finally:
        env.close()


def _build(places: _Places, handle: lmdb.Environment, txn: Txn, progress: Progress) -> list[str]:
    """Build the new store; return a sentence for each image that it lacks."""
    # LMDB trusts its pages: damaged ones could kill the process.
    broken = page_problems(places.current)
    if broken:
        raise StoreDamaged(
            f"the file of {places.current} is damaged: {broken[0]}; restore a backup"
        )
    old = OldStore.open(handle, txn)
    insist_on_room(places.current.parent, needed_bytes(old), "migrating")
    places.building.parent.mkdir(exist_ok=True)
    with Shard.open(places.building, old.spec) as shard:
        return [*old.strays(), *convert(old, shard, progress)]


def _told(folder: Path, problems: Sequence[str]) -> str:
    named = "; ".join(problems[:_NAMED_PROBLEMS])
    more = len(problems) - _NAMED_PROBLEMS
    rest = f"; and {more:,} more" if more > 0 else ""
    return (
        f"the store in {folder} is damaged, and was left as it is: {named}{rest}. "
        "Restore a backup, or migrate without these images (--skip-damaged)"
    )
