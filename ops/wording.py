"""Words that several commands need."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """Return how many there are, as people say it: `1 image`, `60,000 images`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {_plural(thing)}"


def _plural(thing: str) -> str:
    if thing.endswith("y"):
        return f"{thing[:-1]}ies"
    return f"{thing}es" if thing.endswith(("ch", "sh", "s", "x")) else f"{thing}s"
