"""Fetching from the web: guarded against private addresses, endless answers and slow ones."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from requests_hardened import Config, Manager
from requests_hardened.ip_filter import InvalidIPAddress

from workers.errors import Failed, Rejected, WorkerError
from workers.files import too_many_bytes
from workers.settings import Settings

MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Fetched:
    """What came back: the address after redirects, and the media type it claims."""

    url: str
    media_type: str


class HttpError(Failed):
    """The server answered, and not with the thing that was asked for."""

    code = "http_status"

    def __init__(self, url: str, status: int) -> None:
        known = {entry.value: entry.phrase for entry in HTTPStatus}
        super().__init__(
            f"{url} answered {status} {known.get(status, '')}".rstrip() + ".",
            remedy="Open it in a browser; the image may have moved or need a login.",
        )
        self.status = status


class Fetcher:
    """Fetches URLs; safe to share between threads.

    Addresses are checked after name resolution and on every redirect, and the connection goes to
    the very address that was checked (requests-hardened does both), so a name that resolves
    differently the second time gains nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.fetch_timeout_s
        self._manager = Manager(
            Config(
                default_timeout=(_CONNECT_TIMEOUT_S, settings.fetch_timeout_s),
                never_redirect=False,
                ip_filter_enable=not settings.allow_private_addresses,
                ip_filter_allow_loopback_ips=False,
                user_agent_override=settings.user_agent,
            )
        )

    def fetch(self, url: str, sink: BinaryIO, *, max_bytes: int) -> Fetched:
        """Write what a URL answers to ``sink``.

        Raises:
            Rejected: The URL is not one, leads to a private address, or answers too much.
            Failed: It does not answer, answers with an error, or takes too long.
        """
        check_url(url)
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._session() as session, session.get(url, stream=True) as response:
                if response.status_code != HTTPStatus.OK:
                    raise HttpError(url, response.status_code)
                self._copy(response, sink, url, max_bytes, deadline)
                media_type = response.headers.get("Content-Type", "").split(";")[0].strip()
                return Fetched(response.url, media_type.lower())
        except requests.RequestException as error:
            raise _translated(error, url, self._timeout_s) from error

    def _session(self) -> requests.Session:
        session: requests.Session = self._manager.get_session()
        session.max_redirects = MAX_REDIRECTS
        # The environment's .netrc would send credentials to whatever host a URL names.
        session.trust_env = False
        return session

    def _copy(
        self,
        response: requests.Response,
        sink: BinaryIO,
        url: str,
        max_bytes: int,
        deadline: float,
    ) -> None:
        size = 0
        for chunk in response.iter_content(_CHUNK_BYTES):
            size += len(chunk)
            if size > max_bytes:
                raise too_many_bytes(url, max_bytes)
            if time.monotonic() > deadline:
                raise _timeout(url, self._timeout_s)
            sink.write(chunk)


def check_url(url: str) -> None:
    """Check that a text is an ``http`` or ``https`` URL with a host.

    Raises:
        Rejected: It is not.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or len(url) > 2_000:
        raise Rejected(
            f"{url[:200]!r} is not a web address.",
            remedy="It must start with http:// or https://, name a host, "
            "and be at most 2,000 characters long.",
            code="bad_url",
        )


def _timeout(url: str, timeout_s: float) -> Failed:
    return Failed(
        f"{url} took more than {timeout_s:g} s.",
        remedy="Try again later, or raise LOOKALIKE_FETCH_TIMEOUT_S.",
        code="fetch_timeout",
    )


def _translated(error: requests.RequestException, url: str, timeout_s: float) -> WorkerError:
    if isinstance(error, InvalidIPAddress):
        return Rejected(
            f"{url} leads to a private address ({error}).",
            remedy="Set LOOKALIKE_ALLOW_PRIVATE_ADDRESSES=1 if that is meant.",
            code="private_address",
        )
    if isinstance(error, requests.Timeout):
        return _timeout(url, timeout_s)
    if isinstance(error, requests.TooManyRedirects):
        return Failed(
            f"{url} redirects more than {MAX_REDIRECTS} times.",
            remedy="Use the address that it ends at.",
            code="too_many_redirects",
        )
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Rejected(
            f"{url} is not a web address, or redirects to something that is not.",
            remedy="It must start with http:// or https:// and name a host.",
            code="bad_url",
        )
    return Failed(
        f"{url} cannot be reached.",
        remedy="Check the address and that the host is up.",
        code="unreachable",
    )
