"""The production server: limits, errors before the application, and an orderly end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.webui.world import API, World
from webui.server import SiteServer, make_server
from workers.errors import Conflict
from workers.options import SearchOptions
from workers.records import Search, SearchState

PATIENCE_S = 30


@contextmanager
def running(world: World) -> Iterator[SiteServer]:
    server = make_server(world.app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def raw(server: SiteServer, request: bytes) -> tuple[int, dict[str, object]]:
    """Send bytes as they are and return the status and the body of the answer."""
    with socket.create_connection(server.address, timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


def test_the_server_says_where_it_is_and_ends_when_it_is_told(idle: World) -> None:
    with running(idle) as server:
        host, port = server.address
        assert server.url == f"http://{host}:{port}/"
        status, body = raw(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (status, body) == (200, {"status": "ok"})
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, port), timeout=PATIENCE_S)


def test_what_is_too_large_is_refused_before_it_is_sent(idle: World) -> None:
    too_much = idle.app.config["MAX_CONTENT_LENGTH"] * 2
    with running(idle) as server:
        head = f"POST {API}/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {too_much}\r\n\r\n"
        status, body = raw(server, head.encode())
    assert status == 413
    assert body["error"]["code"] == "too_large"  # type: ignore[index]
    assert body["error"]["status"] == 413  # type: ignore[index]


def test_what_is_no_http_gets_the_error_body(idle: World) -> None:
    with running(idle) as server:
        status, body = raw(server, b"GET / HTTP/1.1\r\nno header\r\n\r\n")
    assert status == 400
    assert set(body["error"]) == {"code", "message", "remedy", "status"}  # type: ignore[call-overload]


def test_a_long_poll_is_answered_when_the_server_stops(
    idle: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    queued = Search("t", SearchState.QUEUED, {"kind": "url", "label": ""}, SearchOptions(), 0.0)

    def wait_search(ticket: str, seconds: float) -> Search:
        waiting.set()
        threading.Event().wait(seconds)
        return queued

    monkeypatch.setattr(idle.client, "wait_search", wait_search, raising=True)
    answers = []
    with running(idle) as server:
        request = f"GET {API}/searches/t?wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        asking = threading.Thread(target=lambda: answers.append(raw(server, request)))
        asking.start()
        assert waiting.wait(PATIENCE_S)
    asking.join(PATIENCE_S)
    [(status, body)] = answers
    assert (status, body["state"]) == (200, "queued")


def test_a_port_that_is_taken_is_told_with_a_remedy(idle: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port}.*--port"):
            make_server(idle.app, host="127.0.0.1", port=port)
