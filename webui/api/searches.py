"""Searches: ask, look how far it is, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Response, url_for

from webui.context import site
from webui.errors import WebError
from webui.imagefiles import BINARY, image_file
from webui.openapi import JSON, MULTIPART, Noun
from webui.search_schemas import SearchFormSchema, SearchJsonSchema, SearchQuery, SearchSchema
from webui.uploads import named_stream
from workers.records import SearchState

if TYPE_CHECKING:
    from workers.records import Search

noun = Noun("searches", "Find the images that look like a given one.")

_TICKET = {"ticket": "The ticket that the search was answered with."}
_LOCATION = {"Location": {"description": "Where to ask.", "schema": {"type": "string"}}}


@noun.route(
    "POST",
    returns=SearchSchema,
    status=202,
    headers=_LOCATION,
    bodies={JSON: SearchJsonSchema, MULTIPART: SearchFormSchema},
    errors=(404,),
)
def create(body: Mapping[str, Any]) -> tuple[Search, int, dict[str, str]]:
    """Search with an uploaded image, an address or a stored image.

    The answer comes at once and names a ticket; ask for the result at the Location.
    """
    given = dict(body)
    upload = given.pop("file", None)
    search = site().client.submit_search(upload=upload and named_stream(upload), **given)
    return search, 202, {"Location": url_for("searches.read", ticket=search.ticket)}


@noun.route(
    "GET", "/<ticket>", returns=SearchSchema, path=_TICKET, query=SearchQuery, errors=(404,)
)
def read(query: Mapping[str, Any], ticket: str) -> Search:
    """Tell how far a search is, with its hits once there are any, all or a part of them.

    The hits are kept as they were found, so pages of them fit together while images come and go.
    An expired result is told by its state; a ticket that was never given out is 404.
    """
    client = site().client
    found = site().polls.wait(
        lambda seconds: client.wait_search(ticket, seconds),
        done=lambda search: not search.state.open,
        seconds=query["wait"],
    )
    return _known(found).part(query["offset"], query.get("limit"))


@noun.route("DELETE", "/<ticket>", returns=SearchSchema, path=_TICKET, errors=(403, 404))
def cancel(ticket: str) -> Search:
    """Cancel a search; one that is finished stays as it is."""
    return _known(site().client.cancel_search(ticket))


@noun.route(
    "GET",
    "/<ticket>/thumbnail",
    returns=BINARY,
    content_type="image/jpeg",
    path=_TICKET,
    errors=(404,),
)
def thumbnail(ticket: str) -> Response:
    """Return a small JPEG of the image that was searched with, while the result is kept.

    A search with a stored image has none of its own.
    """
    path = site().client.query_thumbnail(ticket)
    return image_file(path, "image/jpeg", name=f"{ticket}.jpg")


def _known(search: Search) -> Search:
    if search.state is SearchState.UNKNOWN:
        raise WebError(
            404,
            "unknown_ticket",
            "There is no search with this ticket.",
            remedy="It was never given out, or its result was removed long ago; search again.",
        )
    return search
