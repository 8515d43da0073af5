"""Medians and percentiles, rounded for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def rounded(value: float) -> float:
    """Return a figure with no more digits than a benchmark can vouch for."""
    return float(f"{value:.4g}")


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value."""
    return rounded(float(np.median(values)))


def spread(values: Sequence[float], *percentiles: int) -> dict[str, float]:
    """Return percentiles by name, such as ``p50``; the defaults are 50 and 95."""
    wanted = percentiles or (50, 95)
    found = np.percentile(values, wanted)
    return {f"p{name}": rounded(float(value)) for name, value in zip(wanted, found, strict=True)}


def spreads(samples: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the spread of each key over samples; a key may be missing from some of them."""
    keys = dict.fromkeys(key for sample in samples for key in sample)
    return {key: spread([sample[key] for sample in samples if key in sample]) for key in keys}
