"""The C library is asked to keep memory, and may be one that cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest

from models.training.memory import keep_freed_memory

# How often this process touched a page for the first time, when it takes and frees 64 MB again.
_PROGRAM = """
import ctypes, resource, sys
from models.training.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
ctypes.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def once():
    buffer = libc.malloc(1 << 26)
    ctypes.memset(buffer, 1, 1 << 26)
    libc.free(buffer)

if sys.argv[1] == "kept":
    keep_freed_memory()
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def first_touches(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_that_was_freed_is_kept() -> None:
    if first_touches("returned") < 10:
        pytest.skip("this C library keeps freed memory anyway, or maps it in very large pages")
    assert first_touches("kept") < 10


def test_a_c_library_without_the_call_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    keep_freed_memory()
