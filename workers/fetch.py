"""Fetching from the web: guarded against private addresses, endless answers and slow ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress

from workers.errors import Failed, Rejected, WorkerError
from workers.files import too_many_bytes
from workers.settings import Settings
from workers.timelimit import obey_time_limit, time_limit

MAX_REDIRECTS = 5
MAX_URL_CHARS = 2_000
_CHUNK_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 5.0
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Not all that urllib3 and the name look-up raise is translated by requests.
_CLIENT_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError)
_BAD_ADDRESS = (
    requests.exceptions.InvalidURL,
    urllib3.exceptions.LocationValueError,
    UnicodeError,
)
_BROKEN_OFF = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


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
        self._config = Config(
            default_timeout=(min(_CONNECT_TIMEOUT_S, self._timeout_s), self._timeout_s),
            never_redirect=False,
            ip_filter_enable=not settings.allow_private_addresses,
            ip_filter_allow_loopback_ips=False,
            user_agent_override=settings.user_agent,
        )

    def fetch(self, url: str, sink: BinaryIO, *, max_bytes: int) -> Fetched:
        """Write what a URL answers to ``sink``.

        Raises:
            Rejected: The URL is not one, leads to a private address, or answers too much.
            Failed: It does not answer, answers with an error, or takes too long.
        """
        with time_limit(self._timeout_s) as limit:
            try:
                fetched = self._fetch(url, sink, max_bytes)
            except _CLIENT_ERRORS as error:
                if limit.over:
                    raise _timeout(url, self._timeout_s) from error
                raise _translated(error, url, self._timeout_s) from error
            if limit.over:  # an answer without a length ends like this when it is cut
                raise _timeout(url, self._timeout_s)
        return fetched

    def _fetch(self, url: str, sink: BinaryIO, max_bytes: int) -> Fetched:
        target = url
        with _Session(self._config) as session:
            for _ in range(MAX_REDIRECTS + 1):
                _check_target(target, url)
                with session.get(target, stream=True) as response:
                    further = session.further(response)
                    if further is None:
                        return _copied(response, sink, url, max_bytes)
                    target = _joined(target, further)
        raise Failed(
            f"{url} redirects more than {MAX_REDIRECTS} times.",
            remedy="Use the address that it ends at.",
            code="too_many_redirects",
        )


class _Session(HTTPSession):  # type: ignore[misc]
    """A session that leaves redirects to its caller: requests would first read their bodies."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        # The environment's .netrc would send credentials to whatever host a URL names.
        self.trust_env = False
        obey_time_limit(self)

    def get_redirect_target(self, _response: requests.Response) -> None:
        """Say that there is none."""

    def further(self, response: requests.Response) -> str | None:
        """Return where a response redirects to, if it does."""
        target: str | None = super().get_redirect_target(response)
        return target


def _copied(response: requests.Response, sink: BinaryIO, url: str, max_bytes: int) -> Fetched:
    if response.status_code != HTTPStatus.OK:
        raise HttpError(url, response.status_code)
    size = 0
    for chunk in response.iter_content(_CHUNK_BYTES):
        size += len(chunk)
        if size > max_bytes:
            raise too_many_bytes(url, max_bytes)
        sink.write(chunk)
    media_type = response.headers.get("Content-Type", "").split(";")[0].strip()
    return Fetched(response.url, media_type.lower())


def _joined(base: str, target: str) -> str:
    try:
        return urljoin(base, target)
    except ValueError:
        return target


def _check_target(target: str, url: str) -> None:
    try:
        check_url(target)
    except Rejected as error:
        if target == url:
            raise
        raise Rejected(
            f"{url} redirects to something else: {error.message}",
            remedy=error.remedy,
            code=error.code,
        ) from error


def check_url(url: str) -> None:
    """Check that a text is an ``http`` or ``https`` URL with a host, and without a password.

    Raises:
        Rejected: It is not.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        open_to_all = parts.username is None and parts.password is None
    except ValueError:
        usable = open_to_all = False
    if not usable or len(url) > MAX_URL_CHARS or _UNUSABLE.search(url):
        raise Rejected(
            f"{url[:200]!r} is not a web address.",
            remedy="It must start with http:// or https://, name a host, "
            f"and be at most {MAX_URL_CHARS:,} characters long.",
            code="bad_url",
        )
    if not open_to_all:
        raise Rejected(
            f"The address at {parts.hostname} holds a user name or password, which would be "
            "shown with the image.",
            remedy="Use an address that needs none, or upload the file.",
            code="url_credentials",
        )


def _timeout(url: str, timeout_s: float) -> Failed:
    return Failed(
        f"{url} took more than {timeout_s:g} s.",
        remedy="Try again later, or raise LOOKALIKE_FETCH_TIMEOUT_S.",
        code="fetch_timeout",
    )


def _translated(error: Exception, url: str, timeout_s: float) -> WorkerError:
    if isinstance(error, InvalidIPAddress):
        return Rejected(
            f"{url} leads to a private address ({error}).",
            remedy="Set LOOKALIKE_ALLOW_PRIVATE_ADDRESSES=1 if that is meant.",
            code="private_address",
        )
    if isinstance(error, requests.Timeout):
        return _timeout(url, timeout_s)
    if isinstance(error, _BAD_ADDRESS):
        return Rejected(
            f"{url} is not a web address, or redirects to something that is not.",
            remedy="It must start with http:// or https:// and name a host.",
            code="bad_url",
        )
    if isinstance(error, _BROKEN_OFF):
        return Failed(
            f"{url} broke off in the middle of its answer.",
            remedy="Try again later; if it stays so, the site is at fault.",
            code="broken_answer",
        )
    if isinstance(error, requests.exceptions.SSLError):
        return Failed(
            f"{url} offers no secure connection that can be trusted.",
            remedy="Open it in a browser; its certificate may be out of date or its own.",
            code="bad_certificate",
        )
    return Failed(
        f"{url} cannot be reached.",
        remedy="Check the address and that the host is up.",
        code="unreachable",
    )
