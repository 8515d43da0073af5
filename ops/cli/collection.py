"""Whether there is a collection, for the commands that only look at one."""

from __future__ import annotations

from pathlib import Path

from workers.errors import NotFound
from workers.settings import Settings

_TRACES = ("shards", "ledger.sqlite")


def check_collection(settings: Settings) -> None:
    """See that looking does not begin a collection in a folder that was named by mistake.

    A ledger elsewhere is a collection too, whose first image may still be on its way.

    Raises:
        NotFound: There is no collection.
    """
    begun = any((settings.data_dir / trace).exists() for trace in _TRACES)
    if not begun and not settings.ledger_url:
        raise no_collection(settings.data_dir)


def no_collection(data_dir: Path) -> NotFound:
    """Return what a person is told where there is no collection."""
    return NotFound(
        f"There is no collection in {data_dir}.",
        remedy="Check --data-dir, or fill it with `lookalike ingest FOLDER`.",
        code="no_collection",
    )
