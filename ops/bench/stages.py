"""Where the time of ingest goes, as the bulk workers log it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.bench.figures import rounded


class _Notes(logging.Handler):
    """Appends the stages of every batch to a file, one JSON object per line."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.DEBUG)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        stages_ms = getattr(record, "stages_ms", None)
        if stages_ms is None:
            return
        note = {"process": record.process, "ended_at": record.created, "stages_ms": stages_ms}
        with self._path.open("a") as file:
            file.write(json.dumps(note) + "\n")


@contextmanager
def note_stages(path: Path) -> Iterator[None]:
    """Write down the stages of the batches that this process takes in."""
    log = logging.getLogger("workers.ingest")
    before, notes = log.level, _Notes(path)
    log.setLevel(logging.DEBUG)
    log.addHandler(notes)
    try:
        yield
    finally:
        log.removeHandler(notes)
        log.setLevel(before)


def read_notes(path: Path, *, since: float) -> list[dict[str, Any]]:
    """Return the notes of the batches that ended after a moment in unix seconds."""
    lines = path.read_text().splitlines() if path.exists() else []
    notes = [json.loads(line) for line in lines]
    return [note for note in notes if note["ended_at"] >= since]


def per_image_ms(
    notes: Sequence[dict[str, Any]], *, images: int, seconds: float
) -> dict[str, float]:
    """Add up the stages of a round.

    Args:
        notes: As ``read_notes`` returns them.
        images: Images of the round.
        seconds: Length of the round.

    Returns:
        Milliseconds of a bulk worker's time per image and stage, ``elsewhere`` being what is
        not in any stage: receiving, acknowledging, waiting for messages. With several bulk
        workers the sum is as many times the time per image.
    """
    total: dict[str, float] = {}
    for note in notes:
        for stage, spent in note["stages_ms"].items():
            total[stage] = total.get(stage, 0.0) + spent
    workers = len({note["process"] for note in notes}) or 1
    total["elsewhere"] = workers * seconds * 1000 - sum(total.values())
    return {stage: rounded(spent / images) for stage, spent in total.items()}
