"""Memory of the C library, as training wants it."""

import ctypes
from contextlib import suppress

# Of <malloc.h>, for mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, where the C library is glibc.

    Every step of training takes and frees the same buffers. glibc gives large ones back to the
    kernel each time, which hands them out again page by page, filled with zeros: a quarter of the
    time of a step (docs/decisions.md).
    """
    with suppress(AttributeError, OSError):  # a C library without it
        tune = ctypes.CDLL(None).mallopt
        tune(_MMAP_MAX, 0)
        tune(_TRIM_THRESHOLD, -1)
