"""What keeps other sites, and other people's images, from acting through a visitor's browser.

There are no accounts and no cookies, so there is nothing to steal; what remains is a browser that
is inside the network and is told what to do by a page from outside:

* DNS rebinding: that page's own name is pointed at this server. Names other than the configured
  ones are refused. A literal address cannot be rebound and is always accepted.
* Cross-site requests: browsers say where a request comes from, and one that changes something is
  refused unless it comes from these pages. Without cookies no token is needed. Programs that are
  no browsers send neither header and are let through.
* Content: everything is same-origin, scripts and styles come from files, and nothing is sniffed.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.sansio.utils import host_is_trusted

from webui.errors import WebError

LOOPBACK_NAMES = ("localhost", ".localhost")

# Widths of bars are set by script through the CSSOM, which the policy allows; blob: and data: are
# previews of images that the visitor has chosen and that are still in the browser.
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Even if a browser took an image for a page, nothing in it would run.
IMAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"

_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def protect(app: Flask, *, names: tuple[str, ...]) -> None:
    """Refuse foreign hosts and cross-site changes, and send the protective headers.

    Args:
        app: The application.
        names: Host names that it answers to besides loopback names and literal addresses. One
            that starts with a dot stands for all names below it, too.
    """
    trusted = [*LOOPBACK_NAMES, *names]
    app.before_request(lambda: _refuse_foreign_host(trusted))
    app.before_request(_refuse_cross_site)
    app.after_request(_harden)


def _refuse_foreign_host(trusted: list[str]) -> None:
    host = request.headers.get("Host", "")
    if not (_is_address(host) or host_is_trusted(host, trusted)):
        raise WebError(
            400,
            "untrusted_host",
            f"This server does not answer to the name {host[:100]!r}.",
            remedy="Use its address, or add the name to the setting allowed_hosts.",
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
    return True


def _refuse_cross_site() -> None:
    if request.method not in _SAFE_METHODS and not _from_here():
        raise WebError(
            403,
            "cross_site",
            "A page of another site asked for this change, and it was refused.",
            remedy="Use the pages of this server, or a program that is not a browser.",
        )


def _from_here() -> bool:
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("Host")


def _harden(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if response.is_json:  # how things stand now, and nobody else's business
        response.headers.setdefault("Cache-Control", "no-store")
    return response
