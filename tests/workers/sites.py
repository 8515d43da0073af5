"""A web site on loopback whose answers a test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, str, bytes]


@dataclass
class Site:
    """Answers by path; a function is called for its answer, and may take its time."""

    url: str = ""
    answers: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    visits: list[str] = field(default_factory=list)

    def add(self, path: str, body: bytes, media_type: str = "text/html") -> str:
        """Put something at a path and return its URL."""
        self.answers[path] = (200, media_type, body)
        return self.url + path


@contextmanager
def site() -> Iterator[Site]:
    """Run a site on a free port."""
    running = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.visits.append(self.path)
            answer = running.answers.get(self.path, (404, "text/plain", b"not here"))
            status, media_type, body = answer() if callable(answer) else answer
            if self.path in running.redirects:
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", running.redirects[self.path])
            else:
                self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    running.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
