"""Words that several commands need."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """Return how many there are, as people say it: `1 image`, `60,000 images`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {_plural(thing)}"


def _plural(thing: str) -> str:
    return f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
