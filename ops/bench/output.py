"""How a benchmark tells its figures: one record, or lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.bench.machine import facts
from ops.cli.console import Console


def put(console: Console, bench: str, figures: Mapping[str, Any]) -> None:
    """Put out one object, with the facts of the machine."""
    machine = facts()
    shown = {**figures, "load_average": machine["load_average"]}
    lines = [f"{bench}:", *(f"  {name:<32} {value}" for name, value in _flat(shown))]
    console.result({"bench": bench, **figures, "machine": machine}, "\n".join(lines))


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
