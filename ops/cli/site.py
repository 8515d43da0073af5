"""Running the site in the foreground until a signal asks to stop."""

from __future__ import annotations

import ipaddress
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ops.cli.console import Console
from ops.lock import ServerLock
from webui.app import create_app
from webui.server import SiteServer, make_server
from workers.client import Client
from workers.settings import Settings

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_site(client: Client, settings: Settings, lock: ServerLock, console: Console) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; a second signal ends the process at once.

    Order of shutdown: take no more requests, let long polls go, send what is ready. The caller
    closes the client after it, which lets embedded workers finish what they are at.

    Raises:
        Conflict: The port is taken.
    """
    server = make_server(create_app(client, settings), host=settings.host, port=settings.port)
    with calling(server.stop, on=STOP_SIGNALS):
        _announce(server, settings, lock, console)
        server.run()
        console.note("Stopping: finishing what is under way.")


def _announce(server: SiteServer, settings: Settings, lock: ServerLock, console: Console) -> None:
    lock.announce(server.url)
    if not is_loopback(settings.host):
        console.note(
            f"Warning: the site has no login, and whoever reaches {settings.host} can search, "
            "ingest and delete. Put it behind a proxy that asks for one, or use --host 127.0.0.1."
        )
    console.result(
        {"event": "listening", "url": server.url}, f"The site is at {server.url} (Ctrl-C stops it)"
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server on this host name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@contextmanager
def calling(stop: Callable[[], None], *, on: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Call `stop` at the first of some signals; the next one has its usual effect again."""

    def first(_number: int, _frame: FrameType | None) -> None:
        restore()
        stop()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, first) for number in on}
    try:
        yield
    finally:
        restore()
