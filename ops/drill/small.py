"""Stores so small that a few dozen images cross every border that millions cross."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from store import compaction, converting, retraining, segments
from store.layout import HEAD

ROWS = 16
"""Images of a segment."""

MAP_BYTES = 1 << 16
"""First size of the memory map: it grows several times."""


def shrink() -> None:
    """Have everything in this process come in small pieces; no store may be open before."""
    for name, module in list(sys.modules.items()):
        if name.startswith("store.") and hasattr(module, "SEGMENT_ROWS"):
            _set(module, {"SEGMENT_ROWS": ROWS})
    _set(segments, {"_VALUES_AT": ROWS * HEAD.itemsize, "_GROWTH_ROWS": 2})
    _set(compaction, {"_CHUNK_SLOTS": 3})
    _set(converting, {"BATCH_IMAGES": 7})
    _set(retraining, {"_SWEPT_ENTRIES": 20})


def _set(module: object, values: Mapping[str, int]) -> None:
    for name, value in values.items():
        if not hasattr(module, name):
            raise AttributeError(f"{module} has no {name} any more; name what replaced it here")
        setattr(module, name, value)
