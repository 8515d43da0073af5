"""One LMDB environment: opening it, transactions, a map that grows by itself, errors."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import lmdb

from store import datafile
from store.errors import (
    NotAStore,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreReadOnly,
)
from store.gate import Gate
from store.layout import TABLE_COUNT, Txn
from store.swapping import LOCK_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

MAP_BYTES = 1 << 30
"""First size of the map: address space only; file and memory are used as they fill."""

LARGEST_STEP_BYTES = 1 << 36
READERS = 512

_TRIES = 10
"""How often a map may be grown by others while it is opened."""

_LOCK_BYTES = 128 + 64 * READERS
"""Size of LMDB's lock file; where it is another one, LMDB makes it larger."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_FOLDER = frozenset({errno.EEXIST, errno.ENOTDIR})
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.BadRslotError,
)


class Environment:
    """The LMDB environment of a folder, shared by all threads of this process.

    Raises:
        NotAStore: The folder or its data file is something else.
        StoreDamaged: The data file is cut off.
        StoreInUse: This process has it open, or had it open when it was forked off.
        StoreReadOnly: The folder may not be written.
    """

    def __init__(self, folder: Path, *, map_bytes: int) -> None:
        self._folder = folder
        self._gate = Gate()
        self._process = os.getpid()
        with translated(folder):
            self._env: lmdb.Environment | None = _open(folder, map_bytes)

    def read(self, work: Callable[[Txn], T]) -> T:
        """Call `work` with a read transaction, which sees the last commit of any process.

        `work` gets memory views, which are dead when it has returned.
        """
        while True:
            with self._entered() as env:
                seen_bytes = env.info()["map_size"]
                try:
                    txn = env.begin(buffers=True)
                except lmdb.MapResizedError:
                    pass
                else:
                    with txn:
                        return work(txn)
            self._adopt(seen_bytes)

    def write(self, work: Callable[[Txn], T]) -> T:
        """Call `work` with a write transaction, and commit it.

        When this returns, the commit is on the disk. One thread of all processes writes at a
        time and the others wait. When the map is full it is grown and `work` is called again, so
        `work` must change nothing but the store.

        Raises:
            StoreFull: No room on the disk or in the address space; nothing was stored.
        """
        while True:
            with self._entered() as env:
                seen_bytes = env.info()["map_size"]
                full = False
                try:
                    with _one_at_a_time(self._folder), env.begin(write=True) as txn:
                        return work(txn)
                except lmdb.MapFullError:
                    full = True
                except lmdb.MapResizedError:
                    pass
            if full:
                self._grow(seen_bytes)
            else:
                self._adopt(seen_bytes)

    def setup(self, work: Callable[[lmdb.Environment, Txn], T]) -> T:
        """Call `work` with the environment and a write transaction, to open tables.

        Handles of tables that were opened in a read transaction do not outlive it.
        """
        return self.write(lambda txn: work(self._live(), txn))

    def copy(self, folder: Path) -> None:
        """Write what is committed at one moment into another folder.

        Writers go on meanwhile. What is written is not flushed. Free pages are copied too: LMDB's
        way to leave them out crashes (SIGSEGV) when another process writes at the same time.

        Raises:
            StoreFull: No room on the other disk.
        """
        while True:
            with self._entered() as env, translated(folder):
                seen_bytes = env.info()["map_size"]
                with suppress(lmdb.MapResizedError):
                    env.copy(os.fspath(folder))
                    return
            datafile.data_path(folder).unlink(missing_ok=True)
            self._adopt(seen_bytes)

    def map_bytes(self) -> int:
        """Return the size of the map."""
        with self._entered() as env:
            return int(env.info()["map_size"])

    def readers(self) -> int:
        """Return the slots in use in the table of readers, over all processes."""
        with self._entered() as env:
            return int(env.info()["num_readers"])

    def close(self) -> None:
        """Wait for open transactions, and close. Calling it again does nothing."""
        if os.getpid() != self._process:
            # Closing what the parent opened is the parent's to do.
            return
        with self._gate.alone():
            if self._env is not None:
                self._env.close()
                self._env = None

    @contextmanager
    def _entered(self) -> Iterator[lmdb.Environment]:
        """Hold the map still, and translate errors."""
        if os.getpid() != self._process:
            raise StoreClosed(
                f"{self._folder} was opened before this process was forked off; "
                "open the store after the fork"
            )
        with self._gate.shared(), translated(self._folder):
            yield self._live()

    def _live(self) -> lmdb.Environment:
        if self._env is None:
            raise StoreClosed(f"the store in {self._folder} is closed; open it again")
        return self._env

    def _adopt(self, seen_bytes: int) -> None:
        """Map what another process has grown."""
        self._resize(seen_bytes, 0)

    def _grow(self, seen_bytes: int) -> None:
        """Make the map larger: twice as large, in steps of at most 64 GiB."""
        self._resize(seen_bytes, seen_bytes + min(seen_bytes, LARGEST_STEP_BYTES))

    def _resize(self, seen_bytes: int, wanted_bytes: int) -> None:
        with self._gate.alone(), translated(self._folder):
            env = self._live()
            if env.info()["map_size"] != seen_bytes:
                return  # another thread was first
            if wanted_bytes > seen_bytes:
                _insist_on_address_space(wanted_bytes - seen_bytes, self._folder)
            env.set_mapsize(wanted_bytes)


def _open(folder: Path, map_bytes: int) -> lmdb.Environment:
    """Open the environment, again if another process grows its map in that moment."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES - 1):
        with suppress(lmdb.MapResizedError):
            return _try_to_open(folder, map_bytes)
    return _try_to_open(folder, map_bytes)


def _try_to_open(folder: Path, map_bytes: int) -> lmdb.Environment:
    """Open the environment.

    Options, and what follows from them:

    - `map_size`: as large as the file's last user had it, so that the first write need not
      grow it.
    - `sync` and `metasync` stay on: a commit costs two flushes of the disk, and survives a
      power cut.
    - `writemap` stays off: the map is read-only, so that a stray pointer cannot damage the
      store, at the price of copying each changed page once.
    - `meminit` stays on: no leftovers of this process's memory reach the file.
    - `readahead=False`: searches touch scattered pages, and reading 128 KiB around each would
      push better pages out of memory; a first scan of a cold file is slower.
    - `max_readers`: at most so many reads at once over all processes; the process that opens
      the environment first decides, and a slot costs 64 bytes of the lock file.
    - `lib_version=0`: format 0.9, which `datafile` can read, whatever the environment
      variable LMDB_DEFAULT_LIB_VERSION says.
    """
    header = datafile.inspect(folder)
    with _one_at_a_time(folder):
        _make_room_for_locks(folder / LOCK_FILE)
        env = lmdb.open(
            os.fspath(folder),
            map_size=max(map_bytes, header.map_bytes if header else 0),
            max_dbs=TABLE_COUNT,
            max_readers=READERS,
            readahead=False,
            create=False,
            lib_version=0,
        )
    # Slots of readers that were killed would keep old pages from being used again.
    env.reader_check()
    if header is None:
        _flush_folder(folder)
    return env


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let threads and processes open a store, and write, one after another.

    LMDB has locks of its own for both, and processes that are killed while they wait for one:

    - The first that opens a store fills the lock file anew. Were it killed half-way, those who
      wait for it would go on with what it left: a count of transactions that begins at 0 again,
      so that their next write takes the place of the last commit.
    - Where one that waits to write was woken and is killed before it runs, a third that came in
      between does not know of those who still sleep, and never wakes them.

    The kernel takes this lock back from whoever dies and gives it to the next.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # Closing alone would leave it to whoever was forked off meanwhile.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _make_room_for_locks(path: Path) -> None:
    """Give a new lock file its room on the disk; LMDB would map it with holes.

    Writing into a hole of a map kills the process (SIGBUS) when the disk is full. A file that is
    not empty is left alone: closing it gives up the locks that this process has on it.
    """
    if path.exists() and path.stat().st_size:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_BYTES)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system without it
            raise
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the names of new files durable; LMDB flushes only what is in them."""
    for path in (folder, folder.parent):
        with suppress(PermissionError):  # an unreadable parent has an owner who looks after it
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _insist_on_address_space(extra_bytes: int, folder: Path) -> None:
    """Try the growth on an empty map: a failure of LMDB's own would lose the environment."""
    try:
        mmap.mmap(-1, extra_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ).close()
    except OSError as error:
        raise StoreFull(
            f"the map of {folder} cannot grow by {extra_bytes} bytes: {error.strerror}; "
            "raise the limit on address space (ulimit -v)"
        ) from error


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn errors of LMDB and of the file system into ours."""
    try:
        yield
    except lmdb.Error as error:
        raise _translate(error, folder) from error
    except OSError as error:
        raise _translate_number(error.errno, error, folder) from error


def _translate(error: lmdb.Error, folder: Path) -> StoreError:
    if isinstance(error, _DAMAGE):
        return StoreDamaged(f"the store in {folder} is damaged ({error}); restore a backup")
    if isinstance(error, lmdb.PanicError):
        return StoreError(f"an earlier write to {folder} failed half-way; close and reopen it")
    if isinstance(error, lmdb.ReadersFullError):
        return StoreError(f"more than {READERS} reads at once on {folder}; start fewer at a time")
    if "already open in this process" in str(error):
        return StoreInUse(
            f"{folder} is open in this process, or was when this process was forked off; "
            "share that store, or open it after the fork only"
        )
    return _translate_number(getattr(error, "code", None), error, folder)


def _translate_number(number: int | None, error: Exception, folder: Path) -> StoreError:
    if number in _NO_SPACE:
        return StoreFull(
            f"no room left for the store in {folder}; nothing of this change was stored: "
            "free some space and repeat it"
        )
    if number == errno.EIO:
        # LMDB reports a write that was cut short by a full disk as an input/output error.
        return StoreFull(
            f"the disk of {folder} is full or fails; nothing of this change was stored: "
            "free some space and repeat it, and look into the system log if that is no help"
        )
    if number in _NO_PERMISSION:
        return StoreReadOnly(
            f"the store in {folder} may not be written; give this user write access to the "
            "folder, which reading needs too"
        )
    if number in _NO_FOLDER:
        return NotAStore(f"{folder} is no folder; take another path")
    return StoreError(f"the store in {folder} cannot be used: {error}")
