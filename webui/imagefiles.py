"""Image files as answers: never decoded here, never sniffed, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, send_file

from webui.security import IMAGE_POLICY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BINARY: Mapping[str, Any] = {"type": "string", "format": "binary"}

# An id is a hash of the content, and a ticket is given out once: what is behind such an address
# never changes.
_FOREVER = "private, max-age=31536000, immutable"


def image_file(path: Path, mimetype: str, *, name: str) -> Response:
    """Return a file that a browser shows in place and keeps.

    Args:
        path: The file.
        mimetype: What it was found to be when it was decoded.
        name: File name to save it under, of plain letters; unique to the content.
    """
    response = send_file(path, mimetype, download_name=name, etag=name)
    response.headers["Cache-Control"] = _FOREVER
    response.headers["Content-Security-Policy"] = IMAGE_POLICY
    return response
