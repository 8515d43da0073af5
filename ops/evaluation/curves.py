"""Curves as PNG, drawn by matplotlib where it is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ops.evaluation.record import RANKINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSING = "matplotlib is not installed, so there are no curves: pip install 'lookalike[evaluate]'"

# Told apart also without colours, and in a colour-blind reader's eyes (Okabe and Ito).
_COLOURS = {"codes": "#0072b2", "reranked": "#d55e00", "features": "#009e73", "itq": "#888888"}
_LINES = ("-", "--")
_SIZE_INCHES = (7.2, 4.2)
_DPI = 110


def can_draw() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_curves(records: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Draw the curves of one bundle, or of two on top of each other.

    Returns:
        File name -> PNG: `precision.png`, `recall.png` and `bits.png`.
    """
    return {
        "precision.png": _drawn(_precision, records),
        "recall.png": _drawn(_recall, records),
        "bits.png": _drawn(_bits, records),
    }


def _drawn(draw: Any, records: Sequence[Mapping[str, Any]]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot, which keeps figures for ever and asks which windows there are.
    figure: Figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, records)
    target = io.BytesIO()
    # Without the version, so that equal curves are equal files.
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _precision(figure: Figure, records: Sequence[Mapping[str, Any]]) -> None:
    axes = figure.subplots()
    for line, record in zip(_LINES, records, strict=False):
        curves = record["curves"]
        for name, values in curves["precision"].items():
            label = f"{_name(record, records)}{RANKINGS[name]}"
            axes.plot(curves["k"], values, line, color=_COLOURS[name], label=label)
    axes.set_xscale("log")
    axes.set_xlabel("hits k")
    axes.set_ylabel("precision@k")
    _finish(axes)


def _recall(figure: Figure, records: Sequence[Mapping[str, Any]]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for line, record in zip(_LINES, records, strict=False):
        rows = record["searches"]
        depth = list(rows[0]["recall"])[-1]
        recalls = [row["recall"][depth] for row in rows]
        label = f"{_name(record, records)}recall@{depth}"
        for axes, column in ((left, "candidates"), (right, "p50_ms")):
            values = [row[column] for row in rows]
            axes.plot(values, recalls, line, marker="o", color=_COLOURS["codes"], label=label)
    left.set_ylabel("recall of an exhaustive search's hits")
    left.set_xlabel("images compared by feature")
    right.set_xlabel("ms in the store (median)")
    left.set_xscale("log")
    right.set_xlim(left=0)
    for axes in (left, right):
        _finish(axes)


def _bits(figure: Figure, records: Sequence[Mapping[str, Any]]) -> None:
    axes = figure.subplots()
    names = [_name(record, records).strip(", ") or "bits" for record in records]
    shares = [record["bits"]["ones_by_bit"] for record in records]
    bins = [edge / 20 for edge in range(21)]
    colours = (_COLOURS["codes"], _COLOURS["reranked"])[: len(records)]
    axes.hist(shares, bins=bins, label=names, color=colours)
    axes.axvline(0.5, color="#888888", linestyle=":")
    axes.set_xlabel("share of images that have the bit set")
    axes.set_ylabel("bits")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")


def _name(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Return what tells two bundles apart in a legend; one alone needs nothing."""
    return f"{record['bundle']['name']}, " if len(records) > 1 else ""
