"""Putting a finished folder in the place of another, and finding out who uses one."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from store.errors import StoreFull, StoreInUse

LOCK_FILE = "lock.mdb"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_THERE = (errno.ENOSYS, errno.EINVAL)
"""What a kernel or a file system says that cannot exchange two names."""

_FLOCK = "hhqqi4x"
"""`struct flock` of Linux on 64 bits: type, whence, start, length, process."""


def swap(new: Path, current: Path, replaced: Path) -> None:
    """Put a folder in the place of another, which goes elsewhere; all on one file system.

    The two change places at once, where the kernel can do that: whoever opens `current` finds
    one or the other, and at no moment nothing.
    """
    replaced.parent.mkdir(exist_ok=True)
    if _exchanged(new, current):
        new.rename(replaced)
    else:
        current.rename(replaced)
        new.rename(current)
    for path in (new, current, replaced):
        flush(path.parent)


def flush(path: Path) -> None:
    """Make a file or the names in a folder durable, whoever wrote them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def insist_on_nobody(folder: Path, doing: str) -> None:
    """Refuse while another process has a store open.

    This process must not have it open: closing a file gives up all its locks on it.

    Raises:
        StoreInUse: Another process has it open.
    """
    pid = _lock_holder(folder / LOCK_FILE)
    if pid is None:
        return
    raise _in_use(folder, doing, sorted({*other_users(folder), pid} - {0, -1}))


def insist_on_no_others(folder: Path, doing: str) -> None:
    """Do the same in a process that has the store open itself, as far as /proc tells.

    Raises:
        StoreInUse: Another process has it open.
    """
    pids = other_users(folder)
    if pids:
        raise _in_use(folder, doing, pids)


def other_users(folder: Path) -> list[int]:
    """Return the other processes that have a store open, as far as /proc tells."""
    with suppress(OSError):
        inode = (folder / LOCK_FILE).stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
        found = (line.split() for line in lines if f":{inode} " in line and " -> " not in line)
        pids = {int(fields[4]) for fields in found if fields[1] == "POSIX"}
        return sorted(pids - {os.getpid(), 0, -1})
    return []


def insist_on_room(folder: Path, needed_bytes: int, doing: str) -> None:
    """Refuse what would fill the disk.

    Raises:
        StoreFull: There is not enough room.
    """
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    if free_bytes < needed_bytes:
        raise StoreFull(
            f"{doing} needs {needed_bytes:,} bytes beside {folder}, and {free_bytes:,} are free; "
            "free some space and repeat it"
        )


def _in_use(folder: Path, doing: str, pids: list[int]) -> StoreInUse:
    who = f"process {', '.join(map(str, pids))}" if pids else "a process elsewhere"
    return StoreInUse(f"{who} has {folder} open; stop it before {doing}")


def _lock_holder(path: Path) -> int | None:
    """Return the process that has an LMDB environment open, 0 or -1 if it has no number here."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names, or return False where that cannot be done."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_THERE:
        return False
    raise OSError(number, os.strerror(number), os.fspath(one), None, os.fspath(other))
