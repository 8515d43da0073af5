"""Images: list, look at, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from webui.context import site
from webui.imagefiles import BINARY, image_file
from webui.openapi import Noun
from webui.schemas import ImageSchema, ImagesQuery, ImagesSchema

noun = Noun("images", "The collection.")

_IMAGE = {"image_id": "Id of the image."}


@noun.route("GET", returns=ImagesSchema, query=ImagesQuery)
def index(query: Mapping[str, Any]) -> dict[str, Any]:
    """List the images, newest first."""
    client = site().client
    page = client.recent(limit=query["limit"], before=query.get("before"))
    return {"count": client.count(), "images": page.images, "next": page.next}


@noun.route("GET", "/<image_id>", returns=ImageSchema, path=_IMAGE, errors=(404,))
def read(image_id: str) -> object:
    """Tell what is known about an image."""
    return site().client.image(image_id)


@noun.route("DELETE", "/<image_id>", returns=None, status=204, path=_IMAGE, errors=(403, 404))
def delete(image_id: str) -> None:
    """Delete an image from the collection; no search finds it any more.

    The file in the folder or on the site that it came from is left alone.
    """
    site().client.delete_image(image_id)


@noun.route(
    "GET",
    "/<image_id>/thumbnail",
    returns=BINARY,
    content_type="image/jpeg",
    path=_IMAGE,
    errors=(404,),
)
def thumbnail(image_id: str) -> Response:
    """Return a small JPEG of the image."""
    return image_file(site().client.thumbnail(image_id), "image/jpeg", name=f"{image_id}.jpg")


@noun.route(
    "GET",
    "/<image_id>/original",
    returns=BINARY,
    content_type="image/*",
    path=_IMAGE,
    errors=(404, 409),
)
def original(image_id: str) -> Response:
    """Return the file that the image was made from, if it is still there and unchanged."""
    path, mimetype = site().client.original(image_id)
    return image_file(path, mimetype, name=f"{image_id}.{mimetype.rpartition('/')[2]}")
