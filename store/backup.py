"""Backups: copies of all shards that are taken while searches and writes go on.

A backup is a folder with `manifest.json` and the files that it names, each under its checksum:
`files/SHA256`. A file is written under another name, flushed, read back and compared before it
gets that name, and the manifest is replaced last. So the backup before stays whole until the
next one is, and files that both have are there once.

The tables of a shard are copied by LMDB as they were at one moment. The files of features that
this copy names follow: committed slots never change, so they may be copied later. A file that
was compacted away before it could be opened means that this shard is begun anew.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from store.copying import checksum, copy_parts, same_start
from store.datafile import DATA_FILE, page_problems
from store.environment import MAP_BYTES, Environment, translated
from store.errors import NotAStore, StoreDamaged, StoreError, StoreInUse, StoreMismatch
from store.layout import open_tables
from store.manifest import CHECKSUM, FILES, MANIFEST, Filed, Manifest, stored
from store.segments import FOLDER
from store.slots import Segment
from store.snapshot import Snapshot
from store.swapping import flush, insist_on_room

if TYPE_CHECKING:
    from store.layout import Txn
    from store.shard import Shard

_INCOMING = "incoming"
_LOCK = "lock"
_OURS = {FILES, _INCOMING, _LOCK, f"{MANIFEST}.part"}

_MOST_OPEN = 512
_TRIES = 10
"""How often a shard is begun anew because a segment was compacted meanwhile."""

_SPARE_BYTES = 1 << 20

Progress = Callable[[str, int, int], None]
"""Called with the name of a shard, the bytes done of it, and all its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What a backup holds.

    Attributes:
        target: Its folder.
        date: When it was begun, in UTC as ISO 8601.
        bundle: Bundle that the collection was built with.
        images: Images in it.
        files: Number of its files.
        bytes: Their size.
        copied_files: How many of them were not in the target before.
        copied_bytes: Their size.
    """

    target: Path
    date: str
    bundle: str
    images: int
    files: int
    bytes: int
    copied_files: int
    copied_bytes: int


def backup(
    shards: Sequence[Shard],
    target: Path | str,
    *,
    verify: bool = False,
    progress: Progress = lambda _name, _done, _of: None,
) -> BackupReport:
    """Copy shards into a folder, which may hold an earlier backup of them.

    Args:
        shards: Of one collection, open; each is copied as it is at one moment of its own.
        target: Made if it is not there.
        verify: Whether to read files of an earlier backup again that are still needed, too.
        progress: Told of what is done.

    Raises:
        StoreFull: The target has no room; the backup before is whole.
        StoreInUse: Another backup into this folder is running.
        StoreMismatch: The folder holds a backup of a collection of another bundle.
        StoreDamaged: A shard cannot be copied, or what was written cannot be read back.
    """
    folder = Path(target)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    with translated(folder), _alone(folder):
        copier = _Copier(folder, _before(folder, shards), verify=verify, progress=progress)
        copied = [copier.shard(shard) for shard in shards]
        manifest = Manifest(
            date=date,
            bundle=shards[0].spec.bundle_id,
            images=sum(images for images, _ in copied),
            shards=tuple(shard.path.name for shard in shards),
            files=tuple(file for _, files in copied for file in files),
        )
        manifest.write(folder)
        _remove_others(folder, manifest)
    return BackupReport(
        target=folder,
        date=date,
        bundle=manifest.bundle,
        images=manifest.images,
        files=len(manifest.files),
        bytes=sum(file.size for file in manifest.files),
        copied_files=len(copier.new),
        copied_bytes=sum(file.size for file in copier.new),
    )


class _Gone(Exception):
    """A segment was compacted after the tables had been copied."""


class _Copier:
    """Brings files into a backup.

    Attributes:
        new: Those that were not there before.
    """

    def __init__(
        self, folder: Path, before: Manifest | None, *, verify: bool, progress: Progress
    ) -> None:
        self._folder = folder
        self._known = {file.path: file for file in before.files} if before else {}
        self._verify = verify
        self._progress = progress
        self.new: list[Filed] = []

    def shard(self, shard: Shard) -> tuple[int, list[Filed]]:
        """Copy a shard; return the number of its images, and its files."""
        for _ in range(_TRIES):
            begin = len(self.new)
            try:
                return self._try(shard)
            except _Gone:
                del self.new[begin:]
        raise StoreError(
            f"{shard.path} was compacted {_TRIES} times while it was copied; "
            "repeat the backup when that is over"
        )

    def _try(self, shard: Shard) -> tuple[int, list[Filed]]:
        with _incoming(self._folder) as incoming, ExitStack() as stack:
            shard._env.copy(incoming)
            images, segments = _contents(incoming, shard)
            sources = [_Source(shard, segment) for segment in segments]
            # What is open can be read to its end, though it is compacted meanwhile.
            for source in sources[:_MOST_OPEN]:
                stack.enter_context(source.opened())
            files = [known for source in sources if (known := self._reusable(source))]
            there = {file.path for file in files}
            missing = [source for source in sources if source.name not in there]
            to_copy = sum(source.size for source in missing)
            insist_on_room(self._folder, to_copy + _SPARE_BYTES, "the backup")
            files.append(self._tables(shard, incoming / DATA_FILE))
            told = _counted(partial(self._progress, shard.path.name), to_copy)
            files += [self._segment(source, incoming / "part", told) for source in missing]
        flush(self._folder / FILES)
        return images, files

    def _reusable(self, source: _Source) -> Filed | None:
        """Return the file if the backup before has it, as far as its heads tell.

        They hold the id and the checksum of each feature.
        """
        known = self._known.get(source.name)
        if known is None or known.size != source.size:
            return None
        path = stored(self._folder, known.sha256)
        if not path.exists() or path.stat().st_size != known.size:
            return None
        with source.opened() as now, path.open("rb") as before:
            if not same_start(now, before, source.heads_bytes):
                return None
        if self._verify and checksum(path) != known.sha256:
            return None
        return known

    def _tables(self, shard: Shard, copy: Path) -> Filed:
        problems = page_problems(copy.parent)
        if problems:
            raise StoreDamaged(f"the tables of {shard.path} are damaged: {problems[0]}")
        path = f"{shard.path.name}/{DATA_FILE}"
        return self._take_in(Filed(path, copy.stat().st_size, checksum(copy)), copy)

    def _segment(self, source: _Source, part: Path, told: Callable[[int], None]) -> Filed:
        with source.opened() as reading:
            written = copy_parts(reading, part, source.parts, told)
        if checksum(part) != written:
            raise StoreDamaged(
                f"what was written into {self._folder} is read back differently; take another disk"
            )
        return self._take_in(Filed(source.name, source.size, written), part)

    def _take_in(self, file: Filed, part: Path) -> Filed:
        """Give a finished file its name."""
        self._known[file.path] = file  # if the shard is begun anew
        target = stored(self._folder, file.sha256)
        if target.exists() and checksum(target) == file.sha256:
            return file
        part.replace(target)
        self.new.append(file)
        return file


class _Source:
    """A file of features, as far as it was committed.

    Attributes:
        name: Its path in the backup.
        parts: Offset and bytes of what counts in it.
        heads_bytes: Bytes of the first part.
        size: Bytes up to the end of the last part.
    """

    def __init__(self, shard: Shard, segment: Segment) -> None:
        self._path = shard._files.path(segment.number, segment.version)
        self._file: BinaryIO | None = None
        self.name = f"{shard.path.name}/{FOLDER}/{self._path.name}"
        self.parts = shard._files.parts(segment.slots)
        self.heads_bytes = self.parts[0][1]
        self.size = sum(self.parts[-1])

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file at its beginning; what was opened further out is used again.

        Raises:
            _Gone: The segment was compacted.
            StoreDamaged: The file is too short.
        """
        if self._file is not None:
            self._file.seek(0)
            yield self._file
            return
        try:
            file = self._path.open("rb")
        except FileNotFoundError as error:
            raise _Gone from error
        with file:
            self._file = file
            try:
                yield file
            except EOFError as error:
                raise StoreDamaged(f"{error}: it was cut off; restore a backup") from error
            finally:
                self._file = None


def _contents(folder: Path, shard: Shard) -> tuple[int, list[Segment]]:
    """Return the number of images and the segments that a copy of the tables tells of."""
    env = Environment(folder, map_bytes=MAP_BYTES)
    try:
        tables = env.setup(lambda handle, txn: open_tables(handle, txn, create=False))

        def work(txn: Txn) -> tuple[int, list[Segment]]:
            store = Snapshot(txn, tables, shard.spec, shard._files)
            return store.count(), list(store.segments())

        return env.read(work)
    finally:
        env.close()


def _counted(progress: Callable[[int, int], None], of: int) -> Callable[[int], None]:
    """Return a function that adds up what it is told."""
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        progress(done, of)

    return told


def _before(folder: Path, shards: Sequence[Shard]) -> Manifest | None:
    """Return the manifest of the backup that is there, if one is."""
    if not (folder / MANIFEST).exists():
        return None
    before = Manifest.read(folder)
    if before.bundle != shards[0].spec.bundle_id:
        raise StoreMismatch(
            f"{folder} holds a backup of a collection of bundle {before.bundle}, and this one "
            f"has {shards[0].spec.bundle_id}; take another folder"
        )
    return before


def _insist_on_ours(folder: Path) -> None:
    """Refuse a folder of something else, before anything is written into it."""
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    strange = {path.name for path in folder.iterdir()} - _OURS
    if strange:
        raise NotAStore(
            f"{folder} holds other things ({min(strange)}) and no backup; take an empty folder"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder against other backups into it."""
    _insist_on_ours(folder)
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreInUse(f"another backup into {folder} is running; wait for it") from error
        yield


@contextmanager
def _incoming(folder: Path) -> Iterator[Path]:
    """Make a folder for files that are not whole yet."""
    incoming = folder / _INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    try:
        yield incoming
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _remove_others(folder: Path, manifest: Manifest) -> None:
    """Delete the files that only the backup before needed."""
    needed = {file.sha256 for file in manifest.files}
    for path in (folder / FILES).iterdir():
        if CHECKSUM.fullmatch(path.name) and path.name not in needed:
            path.unlink()
