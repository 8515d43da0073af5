"""A small disk that can be full: a tmpfs, seen by this process and its children alone."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NEWNS = 0x20000
_PRIVATE_BELOW = 0x40000 | 0x4000
_DETACH = 2
_BALLAST = "ballast"

DISK_BYTES = 16 << 20


def become_private() -> bool:
    """Have mounts of this process be its own, gone when it ends; False where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNS) != 0:
        return False
    return bool(libc.mount(b"none", b"/", None, _PRIVATE_BELOW, None) == 0)


def mount(folder: Path) -> None:
    """Make a folder that is a disk of `DISK_BYTES`."""
    folder.mkdir(parents=True)
    options = f"size={DISK_BYTES}".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "a small disk could not be mounted", str(folder))


def unmount(folder: Path) -> None:
    """Take the disk away, if one is there."""
    ctypes.CDLL(None).umount2(os.fsencode(folder), _DETACH)


def leave_free(folder: Path, free_bytes: int) -> None:
    """Fill the disk up to so many bytes."""
    found = os.statvfs(folder)
    fill = found.f_bavail * found.f_frsize - free_bytes
    descriptor = os.open(folder / _BALLAST, os.O_WRONLY | os.O_CREAT)
    try:
        if fill > 0:
            os.posix_fallocate(descriptor, 0, fill)
    finally:
        os.close(descriptor)


def free(folder: Path) -> None:
    """Take away what fills the disk."""
    (folder / _BALLAST).unlink(missing_ok=True)
