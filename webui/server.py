"""The production server: waitress, with the API's error body and an orderly shutdown.

Limits that are chosen here: ``web_threads`` requests are worked on at once, three quarters of
which may be long polls; a thousand connections may be open; one that is silent for two minutes
between requests is closed. Bodies past half a megabyte are buffered in temporary files.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from flask import Flask, json
from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from webui.context import site_of
from webui.errors import of_status, over_limit
from workers.errors import Conflict

_CONNECTIONS = 1_000
_SILENCE_S = 120
_BACKLOG = 1_024
# Room for the multipart framing, so that the application answers what is only just too large.
_FRAMING_BYTES = 1 << 20
_DRAIN_S = 5.0
_TICK_S = 0.1


class _ErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """Answers what is refused before the application sees it with the application's error body."""

    def execute(self) -> None:
        error = self.request.error
        limit = self.channel.adj.max_request_body_size - _FRAMING_BYTES
        message = over_limit(limit) if error.code == 413 else f"{error.reason}: {error.body}."
        body = json.dumps(of_status(error.code, message).to_dict()).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    error_task_class = _ErrorTask

    @property
    def busy(self) -> bool:
        """Whether a request is being answered or an answer is still on its way out."""
        return bool(self.requests or self.total_outbufs_len)


class SiteServer:
    """Serves one application until :meth:`stop` is called, from a signal handler or a thread."""

    def __init__(self, app: Flask, listening: socket.socket) -> None:
        self._site = site_of(app)
        self._map: dict[int, Any] = {}
        self._stopping = threading.Event()
        self._listener = create_server(
            app,
            map=self._map,
            sockets=[listening],
            threads=self._site.settings.web_threads,
            connection_limit=_CONNECTIONS,
            channel_timeout=_SILENCE_S,
            max_request_body_size=self._site.settings.max_upload_bytes + _FRAMING_BYTES,
            asyncore_use_poll=True,
            ident="lookalike",
        )
        self._listener.channel_class = _Channel

    @property
    def address(self) -> tuple[str, int]:
        """Numeric host and port that the server listens on."""
        return str(self._listener.effective_host), int(self._listener.effective_port)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the site."""
        host, port = self.address
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return f"http://[{here}]:{port}/" if ":" in here else f"http://{here}:{port}/"

    def run(self) -> None:
        """Serve until :meth:`stop` is called; returns once what was begun is answered."""
        try:
            while not self._stopping.is_set():
                self._turn(1.0)
        finally:
            self._drain()

    def stop(self) -> None:
        """Ask :meth:`run` to return soon; may be called from anywhere, more than once."""
        self._stopping.set()
        if self._map:  # not yet over
            self._listener.pull_trigger()

    def _drain(self) -> None:
        # Order: take no connections, let the long polls go, send what is ready, end the threads.
        self._listener.accepting = False
        self._site.polls.stop()
        end = time.monotonic() + _DRAIN_S
        while self._busy() and time.monotonic() < end:
            self._turn(_TICK_S)
        self._listener.task_dispatcher.shutdown(timeout=max(end - time.monotonic(), _TICK_S))
        wasyncore.close_all(self._map)

    def _turn(self, timeout_s: float) -> None:
        wasyncore.loop(timeout=timeout_s, use_poll=True, map=self._map, count=1)

    def _busy(self) -> bool:
        return any(isinstance(one, _Channel) and one.busy for one in list(self._map.values()))


def make_server(app: Flask, *, host: str, port: int) -> SiteServer:
    """Return a server that already listens.

    Args:
        app: What :func:`webui.app.create_app` returned.
        host: Name or address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        Conflict: The port is taken, or the address is not one of this machine.
    """
    return SiteServer(app, _listen(host, port))


def _listen(host: str, port: int) -> socket.socket:
    # Before waitress is made: it starts its threads before it looks whether the port is free.
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise Conflict(
            f"The site cannot listen on {host}:{port}: {error.strerror or error}.",
            remedy="Choose another port with --port; 0 takes a free one.",
            code="address_in_use",
        ) from error
