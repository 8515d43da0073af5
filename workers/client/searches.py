"""Asking for images that look like one, and for the answer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

from workers.client.checks import checked_options
from workers.client.collection import CollectionCalls
from workers.client.parts import LABEL_CHARS, existing, wait_while
from workers.errors import InvalidRequest, Unavailable
from workers.fetch import check_url
from workers.files import empty_file
from workers.ledger import NewSearch
from workers.options import SearchOptions
from workers.records import Problem, Search, SearchState


class SearchCalls(CollectionCalls):
    """Searches by file, URL and stored image."""

    def submit_search(
        self,
        *,
        upload: tuple[str, BinaryIO] | None = None,
        url: str | None = None,
        image_id: str | None = None,
        **options: Any,
    ) -> Search:
        """Queue a search for images that look like one; exactly one image is to be given.

        Args:
            upload: A file's name, only to be shown, and its bytes.
            url: Address of an image.
            image_id: A stored image.
            **options: Fields of :class:`workers.options.SearchOptions`.

        Returns:
            The search, with the ticket to ask for it again.

        Raises:
            InvalidRequest: An argument is out of range, or not exactly one image is given.
            Rejected: The file is empty or too large, or the URL is none.
            NotFound: There is no such stored image.
            Unavailable: The broker does not answer, or too many searches wait.
        """
        asked = checked_options(SearchOptions(**options), max_k=self.settings.max_k)
        if sum(given is not None for given in (upload, url, image_id)) != 1:
            raise InvalidRequest(
                "A search takes exactly one of an image file, a URL and an image id.",
                remedy="Give one of them.",
            )
        self._check_room()
        query, ref = self._query(upload, url, image_id)
        new = NewSearch(query, ref, asked)
        ticket = self._ledger.searches.create(new, keep_s=self.settings.result_hours * 3600)
        try:
            self._dispatcher.search(ticket)
        except Unavailable as error:
            self._ledger.searches.finish(ticket, SearchState.FAILED, problem=Problem.of(error))
            raise
        return self.search(ticket)

    def search(self, ticket: str) -> Search:
        """Return a search as it stands; its state is ``unknown`` if there is no such ticket."""
        return self._ledger.searches.get(ticket)

    def wait_search(self, ticket: str, timeout_s: float) -> Search:
        """Return a search when it is over, or as it stands after the time is up."""
        wait_while(lambda: self._ledger.searches.is_open(ticket), timeout_s)
        return self.search(ticket)

    def cancel_search(self, ticket: str) -> Search:
        """Cancel a search that is not over yet, and return it."""
        self._ledger.searches.finish(ticket, SearchState.CANCELLED)
        return self.search(ticket)

    def query_thumbnail(self, ticket: str) -> Path:
        """Return the thumbnail of a search's query image.

        Raises:
            NotFound: There is none: the query was a stored image, or the result has expired.
        """
        return existing(self._files.query_thumbnail(ticket), "thumbnail of this query")

    def _check_room(self) -> None:
        if self._ledger.searches.queued() >= self.settings.max_queued_searches:
            raise Unavailable(
                "Too many searches wait already.",
                remedy="Try again in a moment, or start more workers.",
                code="busy",
            )

    def _query(
        self, upload: tuple[str, BinaryIO] | None, url: str | None, image_id: str | None
    ) -> tuple[dict[str, str], str]:
        """Return what the query is called and where it can be had."""
        if image_id is not None:
            self.image(image_id)
            return {
                "kind": "image",
                "label": image_id,
                "image_id": image_id,
            }, f"image:{image_id}"
        if url is not None:
            check_url(url)
            return {"kind": "url", "label": url}, url
        name, stream = upload or ("", io.BytesIO())
        limit = self.settings.max_image_bytes
        spooled = self._files.spool(stream, max_bytes=limit, label=name)
        if not self._files.spooled(spooled).stat().st_size:
            self._files.drop(self._files.spooled(spooled))
            raise empty_file(name)
        return {"kind": "upload", "label": name[:LABEL_CHARS]}, f"spool:{spooled}"
