"""The figures of searches as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_COLUMNS = ("stage", "way", "n", "bits", "p50_ms", "p99_ms", "cpu", "recall", "of all", "MB", "")


def table(told: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> str:
    """Return lines of columns, and below what the columns mean."""
    rows = [_COLUMNS, *(_row(entry) for entry in told)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    made_of = dict.fromkeys(f"{entry['dims']} dimensions: {entry['made_of']}" for entry in told)
    return "\n".join([*lines, "", *made_of, *_NOTES, f"load average {machine['load_average']}"])


_NOTES = (
    "cpu: p50_ms of the processor's time, for a machine that others use too",
    "recall: of the nearest codes (candidates); of what comparing all codes leads to (else)",
    "of all: share of the 100 nearest features of all that are among the first 100 hits",
    "MB: private memory of a process with the store open; of a peer, its index",
)


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["stage"],
        entry["way"],
        f"{entry['n']:,}",
        str(entry["bits"]),
        *(_number(entry.get(name)) for name in ("p50_ms", "p99_ms", "cpu_p50_ms", "recall")),
        _number(entry.get("recall_of_exhaustive")),
        _number(entry.get("memory_mb")),
        _rest(entry),
    )


def _rest(entry: Mapping[str, Any]) -> str:
    named = {name: entry[name] for name in _SHOWN if entry.get(name) is not None}
    named |= entry.get("parameters", {})
    ratios = {peer: each["ratio"] for peer, each in entry.get("against", {}).items()}
    told = [f"{name} {value}" for name, value in named.items()]
    return ", ".join(told + [f"x {value} of {peer}" for peer, value in ratios.items() if value])


_SHOWN = (
    "effort",
    "candidates",
    "batch",
    "per",
    "images_per_s",
    "bytes_per_image",
    "open_s",
    "first_time_p50_ms",
    "read_mb",
    "idle_p99_ms",
    "p99_ratio",
    "written_per_s",
)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
