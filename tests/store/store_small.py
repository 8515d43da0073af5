"""Segments of a few rows, so that small stores have many of them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from store import segments
from store.layout import HEAD


@contextmanager
def small_segments(rows: int) -> Iterator[None]:
    """Have all segments of this process take so many rows; no store may be open before."""
    modules = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("store.") and hasattr(module, "SEGMENT_ROWS")
    ]
    small = {"_VALUES_AT": rows * HEAD.itemsize, "_GROWTH_ROWS": 2}
    new: list[tuple[ModuleType, str, int]] = [(each, "SEGMENT_ROWS", rows) for each in modules]
    new += [(segments, name, value) for name, value in small.items()]
    old = [(module, name, getattr(module, name)) for module, name, _ in new]
    try:
        for change in new:
            setattr(*change)
        yield
    finally:
        for change in old:
            setattr(*change)
