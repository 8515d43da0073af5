"""Restoring a backup: all shards are built beside the collection, and take its place at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from store.copying import copy_parts
from store.datafile import DATA_FILE
from store.environment import translated
from store.errors import StoreDamaged, StoreError
from store.manifest import Filed, Manifest, stored
from store.segments import FOLDER
from store.shard import Shard
from store.swapping import flush, insist_on_nobody, insist_on_room, swap

_SPARE_BYTES = 1 << 20
_DOING = "it is restored"

Progress = Callable[[int, int], None]
"""Called with the bytes done, and all bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored.

    Attributes:
        source: Folder of the backup.
        date: When it was begun.
        bundle: Bundle that the collection was built with.
        shards: How many there are.
        images: Images in them.
        bytes: Size of the files.
    """

    source: Path
    date: str
    bundle: str
    shards: int
    images: int
    bytes: int


def restore(
    source: Path | str,
    shards: Path | str,
    *,
    force: bool = False,
    progress: Progress = lambda _done, _of: None,
) -> Restored:
    """Put the shards of a backup where a collection has its shards.

    Every file is compared with its checksum, and every shard opened, before anything that is
    there is replaced.

    Args:
        source: Folder of the backup.
        shards: The folder that the shards of the collection are in; this process must not have
            one of them open.
        force: Whether to replace shards that are there.
        progress: Told of what is done.

    Raises:
        NotAStore: There is no backup.
        StoreDamaged: A file of the backup is missing or not what was written.
        StoreVersionError: A later version made the backup.
        StoreInUse: A process has a shard open that would be replaced.
        StoreFull: The disk has no room for it beside what is there.
        StoreError: There are shards, and they were not to be replaced.
    """
    origin, folder = Path(source), Path(shards)
    manifest = Manifest.read(origin)
    missing = next(manifest.missing(origin), None)
    if missing:
        raise _spoiled(origin, missing)
    with translated(folder):
        _insist_on_free(folder, force=force)
        building = folder.with_name(f"{folder.name}.restoring")
        try:
            _build(manifest, origin, building, progress)
            _insist_on_free(folder, force=force)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _put_in_place(building, folder)
    return Restored(
        source=origin,
        date=manifest.date,
        bundle=manifest.bundle,
        shards=len(manifest.shards),
        images=manifest.images,
        bytes=sum(file.size for file in manifest.files),
    )


def _insist_on_free(folder: Path, *, force: bool) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not force:
        raise StoreError(
            f"{folder} holds a collection; take an empty data directory, or replace it (--force)"
        )
    for shard in folder.iterdir():
        if (shard / DATA_FILE).exists():
            insist_on_nobody(shard, _DOING)


def _build(manifest: Manifest, origin: Path, building: Path, progress: Progress) -> None:
    if building.exists():
        shutil.rmtree(building)
    building.parent.mkdir(parents=True, exist_ok=True)
    size = sum(file.size for file in manifest.files)
    insist_on_room(building.parent, size + _SPARE_BYTES, "restoring")
    for name in manifest.shards:
        (building / name / FOLDER).mkdir(parents=True)
    done = 0
    for file in manifest.files:
        _bring(origin, file, building / file.path)
        done += file.size
        progress(done, size)
    for path in (building, *(p for p in building.rglob("*") if p.is_dir())):
        flush(path)
    found = sum(_images(building / name) for name in manifest.shards)
    if found != manifest.images:
        raise StoreDamaged(
            f"the backup in {origin} holds {found:,} images, not {manifest.images:,}; "
            "take another backup"
        )


def _bring(origin: Path, file: Filed, target: Path) -> None:
    with stored(origin, file.sha256).open("rb") as source:
        found = copy_parts(source, target, [(0, file.size)], lambda _: None)
    if found != file.sha256:
        raise _spoiled(origin, file)


def _images(folder: Path) -> int:
    with Shard.open_existing(folder) as shard:
        return shard.count()


def _put_in_place(building: Path, folder: Path) -> None:
    replaced = folder.with_name(f"{folder.name}.replaced")
    if folder.exists():
        if replaced.exists():
            shutil.rmtree(replaced)
        swap(building, folder, replaced)
    else:
        building.rename(folder)
        flush(folder.parent)
    with suppress(FileNotFoundError):
        shutil.rmtree(replaced)


def _spoiled(origin: Path, file: Filed) -> StoreDamaged:
    return StoreDamaged(
        f"{stored(origin, file.sha256)} ({file.path}) is missing or not what was written; "
        "nothing was replaced: take another backup"
    )
