"""The files of a report, which appear together or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.evaluation.curves import can_draw, draw_curves
from ops.evaluation.examples import examples_of
from ops.evaluation.page import page_of
from ops.evaluation.record import joined
from ops.evaluation.run import Evaluation
from workers.errors import Conflict, Failed

REPORT, PAGE = "report.json", "report.html"


def prepare(folder: Path) -> None:
    """Make the folder of a report, before anything takes long.

    Raises:
        Conflict: It holds files, and no earlier report.
        Failed: It cannot be made or written to.
    """
    with _told(folder):
        held = folder.is_dir() and any(folder.iterdir())
        if held and not (folder / REPORT).is_file():
            raise Conflict(
                f"{folder} holds files, and no earlier report ({REPORT}) that may be replaced.",
                remedy="Choose another --out, or empty it.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def write_report(
    folder: Path,
    found: Sequence[Evaluation],
    records: Sequence[Mapping[str, Any]],
    *,
    classes: Sequence[str],
    seed: int,
) -> list[Path]:
    """Write `report.json`, `report.html` and the curves; what is there of these is replaced.

    Args:
        folder: Made by `prepare`.
        found: One evaluation, or two to be compared.
        records: The same as plain records.
        classes: Names of the classes by label.
        seed: For the choice of examples.

    Returns:
        The files.

    Raises:
        Failed: They cannot be written; those of an earlier report are then still there.
    """
    curves = draw_curves(records) if can_draw() else {}
    page = page_of(records, curves, examples_of(found, classes, seed=seed))
    files = {
        **curves,
        PAGE: page.encode(),
        REPORT: (json.dumps(joined(records), indent=2) + "\n").encode(),
    }
    with _told(folder), tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as scratch:
        for name, data in files.items():
            Path(scratch, name).write_bytes(data)
        for name in files:
            Path(scratch, name).replace(folder / name)
    return [folder / name for name in files]


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(
            f"The report cannot be written to {folder}: {error.strerror or error}.",
            remedy="Choose another --out.",
            code="cannot_write",
        ) from error
