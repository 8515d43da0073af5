"""Stores so small that a few dozen images cross every border that millions cross."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from store import compaction, converting, retraining, segments
from store.layout import HEAD

ROWS = 16
"""Images of a segment."""

MAP_BYTES = 1 << 16
"""First size of the memory map: it grows several times."""

Value = tuple[ModuleType, str, int]
"""A module, the name of a number of it, and what that is to be."""


def shrink() -> None:
    """Have everything in this process come in small pieces; no store may be open before."""
    _set(_segments_of(ROWS))
    _set([(compaction, "_CHUNK_SLOTS", 3), (converting, "BATCH_IMAGES", 7)])
    _set([(retraining, "_SWEPT_ENTRIES", 20)])


@contextmanager
def small_segments(rows: int) -> Iterator[None]:
    """Have all segments of this process take so many rows; no store may be open before."""
    before = _set(_segments_of(rows))
    try:
        yield
    finally:
        _set(before)


def _segments_of(rows: int) -> list[Value]:
    modules = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("store.") and hasattr(module, "SEGMENT_ROWS")
    ]
    rest = {"_VALUES_AT": rows * HEAD.itemsize, "_GROWTH_ROWS": 2}
    return [(module, "SEGMENT_ROWS", rows) for module in modules] + [
        (segments, name, value) for name, value in rest.items()
    ]


def _set(values: Sequence[Value]) -> list[Value]:
    """Give numbers their values, and return those of before."""
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    for module, name, value in values:
        setattr(module, name, value)
    return before
