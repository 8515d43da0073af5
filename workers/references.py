"""References to images: how a file or URL is written down in the ledger and in messages."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from workers.ledger import Reference


def to_file(path: Path) -> Reference:
    """Return the reference to a file; names that are no valid text survive it."""
    shown = os.fsencode(path).decode("utf-8", "replace")
    return Reference(f"file:{quote_from_bytes(os.fsencode(path))}", shown)


def path_of(ref: str) -> Path:
    """Return the path of a ``file:`` reference."""
    return Path(os.fsdecode(unquote_to_bytes(ref.removeprefix("file:"))))


def to_url(url: str) -> Reference:
    """Return the reference to a URL."""
    return Reference(url, url)


def to_upload(spool_name: str, file_name: str) -> Reference:
    """Return the reference to an uploaded file in the spool."""
    return Reference(f"spool:{spool_name}", f"upload:{file_name}")
