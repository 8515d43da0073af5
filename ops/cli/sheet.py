"""The contact sheet of a finished search, made from the thumbnails of the collection."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from PIL import Image

from ops.cli.console import shown
from ops.contact_sheet import BACKGROUND, contact_sheet
from workers.client import Client
from workers.errors import Failed, NotFound
from workers.records import FoundImage, Search

_MISSING_PX = 200


def write_contact_sheet(client: Client, search: Search, target: Path) -> None:
    """Write a PNG with the query and its hits, each with rank, distance and name.

    Raises:
        Failed: The file cannot be written.
    """
    hits = [(_thumbnail(client, hit.id), _caption(hit)) for hit in search.hits]
    sheet = contact_sheet(_query(client, search), hits)
    try:
        sheet.save(target, "PNG")
    except OSError as error:
        raise Failed(
            f"{target} cannot be written: {error.strerror or error}.",
            remedy="Choose another --contact-sheet.",
            code="cannot_write",
        ) from error


def name_of(source: str) -> str:
    """Return the last part of where an image came from: short enough for a table."""
    if source.startswith("upload:"):
        return source.removeprefix("upload:")
    path = urlsplit(source).path if "://" in source else source
    return PurePosixPath(path).name or source


def _query(client: Client, search: Search) -> Image.Image:
    image_id = search.query.get("image_id")
    if image_id is not None:
        return _thumbnail(client, image_id)
    return _opened(client.query_thumbnail(search.ticket))


def _caption(hit: FoundImage) -> str:
    name = shown(name_of(hit.sources[0] if hit.sources else hit.id))
    return f"{hit.rank}  {hit.distance:.3f}  {name}"


def _thumbnail(client: Client, image_id: str) -> Image.Image:
    try:
        return _opened(client.thumbnail(image_id))
    except NotFound:  # deleted since the search, by somebody else
        return Image.new("RGB", (_MISSING_PX, _MISSING_PX), BACKGROUND)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
