"""robots.txt (RFC 9309) and pauses between visits to one site."""

from __future__ import annotations

import io
import threading
import time
from http import HTTPStatus
from urllib.parse import urlsplit

from protego import Protego

from workers.errors import Failed, Rejected, TooLarge, WorkerError
from workers.fetch import Fetcher, HttpError
from workers.settings import Settings

_MAX_BYTES = 512_000  # RFC 9309, section 2.5, asks for at least 500 KiB
_KEPT_S = 3600.0  # well under the 24 hours of section 2.4
_FAILURE_KEPT_S = 60.0
_MAX_SITES = 1_000
_MAX_DELAY_S = 30.0  # a site that asks for more is visited at this pace

_ALLOW_ALL = ""


class Robots:
    """What sites allow, fetched once an hour and kept; safe to share between threads."""

    def __init__(self, fetcher: Fetcher, settings: Settings) -> None:
        self._fetcher = fetcher
        self._agent = settings.user_agent.partition("/")[0]
        self._delay_s = settings.crawl_delay_s
        self._sites: dict[str, tuple[float, Protego | WorkerError]] = {}
        self._next_visit: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """Check that a URL may be visited.

        Raises:
            Rejected: The site's robots.txt forbids it.
            WorkerError: The robots.txt cannot be had, which forbids everything (section 2.3.1.4).
        """
        if not self._rules(url).can_fetch(url, self._agent):
            raise Rejected(
                f"{url} is closed to robots by its site's robots.txt.",
                remedy="Ask the site's owner.",
                code="robots",
            )

    def wait_turn(self, url: str) -> None:
        """Sleep until the URL's site may be visited again."""
        site = _site(url)
        asked_s = self._rules(url).crawl_delay(self._agent) or 0.0
        delay_s = max(self._delay_s, min(asked_s, _MAX_DELAY_S))
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_visit.get(site, 0.0))
            self._next_visit = {
                known: at for known, at in self._next_visit.items() if at > now
            } | {site: turn + delay_s}
        time.sleep(turn - now)

    def _rules(self, url: str) -> Protego:
        site = _site(url)
        with self._lock:
            kept = self._sites.get(site)
        if kept is None or kept[0] < time.monotonic():
            kept = self._ask(site)
            with self._lock:
                if len(self._sites) >= _MAX_SITES:
                    self._sites.clear()
                self._sites[site] = kept
        if isinstance(kept[1], WorkerError):
            raise kept[1].with_traceback(None)
        return kept[1]

    def _ask(self, site: str) -> tuple[float, Protego | WorkerError]:
        """Return what a site allows, or why that is not known, and how long that holds."""
        try:
            rules = Protego.parse(self._fetch(f"{site}/robots.txt"))
        except WorkerError as error:
            # A page may show a thousand images of a host that is down.
            return time.monotonic() + _FAILURE_KEPT_S, error
        return time.monotonic() + _KEPT_S, rules

    def _fetch(self, url: str) -> str:
        sink = io.BytesIO()
        try:
            self._fetcher.fetch(url, sink, max_bytes=_MAX_BYTES)
        except TooLarge:
            pass  # the beginning counts, section 2.5
        except HttpError as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return _ALLOW_ALL
            raise Failed(
                f"{url} cannot be had ({error.status}), so its site counts as closed to robots.",
                remedy="Try again later.",
                code="robots",
            ) from error
        return sink.getvalue().decode("utf-8", "replace")


def _site(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
