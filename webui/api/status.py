"""Status: what runs here, and its limits."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from webui.context import site
from webui.openapi import Noun
from webui.schemas import StatusSchema
from webui.uploads import MAX_FILES

noun = Noun("status", "What runs here.")


@noun.route("GET", returns=StatusSchema)
def read() -> dict[str, Any]:
    """Tell what runs here, how much there is to do, and the limits of a request."""
    settings = site().settings
    return {
        "version": version("lookalike"),
        **site().client.status(),
        "result_hours": settings.result_hours,
        "max_k": settings.max_k,
        "max_image_bytes": settings.max_image_bytes,
        "max_upload_bytes": settings.max_upload_bytes,
        "max_request_files": MAX_FILES,
        "folder_roots": [str(root) for root in settings.folder_roots],
    }
