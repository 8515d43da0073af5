"""Segments of a few rows, so that small stores have many of them."""

import sys
from contextlib import contextmanager

from store import segments
from store.layout import HEAD


@contextmanager
def small_segments(rows):
    """Have all segments of this process take so many rows; no store may be open before."""
    modules = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith("store.") and hasattr(module, "SEGMENT_ROWS")
    ]
    old = [(module, "SEGMENT_ROWS", module.SEGMENT_ROWS) for module in modules]
    old += [(segments, name, getattr(segments, name)) for name in ("_VALUES_AT", "_GROWTH_ROWS")]
    try:
        for module in modules:
            module.SEGMENT_ROWS = rows
        segments._VALUES_AT, segments._GROWTH_ROWS = rows * HEAD.itemsize, 2
        yield
    finally:
        for module, name, value in old:
            setattr(module, name, value)
