"""Images that could not be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.labelled.errors import CorpusError


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read, and why."""

    path: Path
    reason: str


def nothing_readable(root: Path, skipped: Sequence[Skipped]) -> CorpusError:
    """Make the error of a corpus without a readable image."""
    first = f"{skipped[0].path}: {skipped[0].reason}" if skipped else "there is none"
    return CorpusError(f"no image of {root} can be read; the first: {first}")
