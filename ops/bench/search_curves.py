"""Curves of searches as PNG: recall against time, and time against the number of images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.bench.search_compare import recall_axis
from ops.bench.search_names import CANDIDATES, WHOLE
from ops.bench.search_ways import OURS
from ops.cli.console import Console
from ops.evaluation.curves import MISSING, can_draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, told apart by markers too.
_LOOKS = ("#d55e00o", "#0072b2s", "#009e73^", "#cc79a7D", "#888888v", "#e69f00x", "#56b4e9P")
_SIZE_INCHES = (7.2, 4.2)
_DPI = 110

Figures = Mapping[str, Any]


def write_curves(told: Sequence[Figures], folder: Path, console: Console) -> None:
    """Write `recall-STAGE-BITS-N.png` for each collection, and `growth-BITS.png`.

    Without matplotlib only a note is given.
    """
    if not can_draw():
        console.note(MISSING)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, (title, lines) in {**_recalls(told), **_growths(told)}.items():
        growth = name.startswith("growth")
        (folder / name).write_bytes(_drawn(title, lines, growth=growth))


Lines = dict[str, list[tuple[float, float]]]


def _recalls(told: Sequence[Figures]) -> dict[str, tuple[str, Lines]]:
    pictures: dict[str, tuple[str, Lines]] = {}
    for entry in _searches(told):
        name = f"recall-{entry['stage']}-{entry['bits']}-{entry['n']}.png"
        title = f"{entry['stage']}, {entry['n']:,} images, {entry['bits']} bits, {entry['dims']}-d"
        _, lines = pictures.setdefault(name, (title, {}))
        point = (entry["p50_ms"], entry[recall_axis(entry["stage"])])
        label = entry["way"]
        if entry["stage"] == CANDIDATES:
            label += f", {entry['candidates']:,} candidates"
        lines.setdefault(label, []).append(point)
    return pictures


def _growths(told: Sequence[Figures]) -> dict[str, tuple[str, Lines]]:
    pictures: dict[str, tuple[str, Lines]] = {}
    for entry in _searches(told):
        title = f"time against the number of images, {entry['bits']} bits, {entry['dims']}-d"
        _, lines = pictures.setdefault(f"growth-{entry['bits']}.png", (title, {}))
        set_to = entry.get("parameters") or {"effort": entry.get("effort")}
        setting = ", ".join(f"{key} {value}" for key, value in set_to.items() if key != "lists")
        label = f"{entry['way']}, {entry['stage']}, {setting}"
        if entry["way"] == OURS or entry["way"].endswith("Flat"):
            points = lines.setdefault(label.removesuffix(", effort None"), [])
            points.append((entry["n"], entry["p50_ms"]))
    grown = {
        name: (title, {label: points for label, points in lines.items() if _sizes(points) > 1})
        for name, (title, lines) in pictures.items()
    }
    return {name: picture for name, picture in grown.items() if picture[1]}


def _sizes(points: Sequence[tuple[float, float]]) -> int:
    return len({size for size, _ in points})


def _searches(told: Sequence[Figures]) -> list[Figures]:
    return [entry for entry in told if entry["stage"] in (CANDIDATES, WHOLE)]


def _drawn(title: str, lines: Lines, *, growth: bool) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot, which keeps figures for ever and asks which windows there are.
    figure: Figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for look, (label, points) in zip(_LOOKS * len(lines), lines.items(), strict=False):
        values = list(zip(*sorted(points), strict=True))
        axes.plot(*values, "-", marker=look[7:], color=look[:7], label=label)
    axes.set_title(title, fontsize="medium")
    _label(axes, growth=growth)
    target = io.BytesIO()
    figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _label(axes: Axes, *, growth: bool) -> None:
    axes.set_xscale("log")
    if growth:
        axes.set_yscale("log")
    axes.set_xlabel("images" if growth else "ms (median, one thread)")
    axes.set_ylabel("ms (median, one thread)" if growth else "recall")
    axes.grid(visible=True, alpha=0.3)
    if growth:
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    else:
        axes.legend(fontsize="x-small")
