"""Stopping a process at a system call, by ptrace(2): between two writes, not at some moment.

A moment drawn by chance falls into the long stretches of an operation; the few microseconds
between two renames are met once in thousands of rounds. Counting system calls meets each of
these gaps as often as any other.
"""

from __future__ import annotations

import ctypes
import os
import signal

_TRACEME, _SETOPTIONS, _SYSCALL = 0, 0x4200, 24
_EXITKILL = 0x100000


def ask() -> None:
    """Have the parent trace this process from here on.

    Raises:
        OSError: That is not allowed here.
    """
    _ptrace(_TRACEME, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


def allowed() -> bool:
    """Tell whether processes may be traced here, by doing it."""
    child = os.fork()
    if child == 0:
        try:
            ask()
        except OSError:
            os._exit(1)
        os._exit(0)
    return run(child, 10_000)[1] == 0


def run(pid: int, stops: int) -> tuple[int, int | None]:
    """Let a child that has asked for it run on, and kill it at a system call.

    Args:
        pid: Of the child.
        stops: Entries into system calls and returns from them that it lives to see.

    Returns:
        How many it saw, and its status (as of `os.waitpid`) if it ended before.
    """
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSTOPPED(status):
        return 0, status
    _ptrace(_SETOPTIONS, pid, _EXITKILL)
    for seen in range(stops):
        passed_on = os.WSTOPSIG(status)
        quiet = passed_on in (signal.SIGTRAP, signal.SIGSTOP)
        _ptrace(_SYSCALL, pid, 0 if quiet else passed_on)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSTOPPED(status):
            return seen, status
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return stops, None


def _ptrace(request: int, pid: int, data: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, None, data) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
