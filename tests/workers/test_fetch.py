"""Fetching: what servers may do to us, and where URLs may not lead."""

from __future__ import annotations

import gzip
import io
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requests_hardened import ip_filter

from tests.workers.pictures import jpeg
from tests.workers.test_decode import refused
from workers.errors import Failed, Rejected, TooLarge, WorkerError
from workers.fetch import MAX_REDIRECTS, Fetched, Fetcher, HttpError, check_url
from workers.settings import Settings

MAX_BYTES = 10_000
PATIENCE_S = 60.0
OPEN = Settings(allow_private_addresses=True, fetch_timeout_s=PATIENCE_S)
HURRIED = Settings(allow_private_addresses=True, fetch_timeout_s=0.3)
CLOSED = Settings(fetch_timeout_s=PATIENCE_S)

Send = Callable[[bytes], None]


class Talk(socketserver.StreamRequestHandler):
    """Hears a request out and says whatever the test has put at its path."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, RawServer)
        line = self.rfile.readline().decode("latin1")
        headers = list(iter(self.rfile.readline, b"\r\n")) if line else []
        if not line or not headers:
            return
        path = line.split()[1]
        server.heard.append((path, b"".join(headers).decode("latin1")))
        with suppress(OSError):
            server.says[path](self.wfile.write)


class RawServer(socketserver.ThreadingTCPServer):
    """A web server that may break every rule of HTTP."""

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Talk)
        self.port = self.server_address[1]
        self.url = f"http://{address}:{self.port}"
        self.says: dict[str, Callable[[Send], None]] = {}
        self.heard: list[tuple[str, str]] = []
        self.over = threading.Event()

    def put(self, path: str, answer: bytes) -> str:
        self.says[path] = lambda send: send(answer)
        return self.url + path

    def drip(self, path: str, start: bytes, again: bytes) -> str:
        """Say something, and then a little more for ever."""

        def say(send: Send) -> None:
            send(start)
            while not self.over.wait(0.02):
                send(again)

        self.says[path] = say
        return self.url + path

    def redirect(self, path: str, target: str) -> str:
        head = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
        return self.put(path, head.encode("latin1"))


@contextmanager
def running(address: str = "127.0.0.1") -> Iterator[RawServer]:
    with RawServer(address) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[RawServer]:
    with running() as started:
        yield started


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    given = {"Content-Length": str(len(body)), "Connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin1") + body


def fetched(
    url: str, settings: Settings = OPEN, max_bytes: int = MAX_BYTES
) -> tuple[bytes, Fetched]:
    sink = io.BytesIO()
    result = Fetcher(settings).fetch(url, sink, max_bytes=max_bytes)
    return sink.getvalue(), result


def failure(url: str, settings: Settings = OPEN, max_bytes: int = MAX_BYTES) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        fetched(url, settings, max_bytes)
    assert caught.value.remedy
    assert caught.value.message.endswith(".")
    return caught.value


# -- answers ---------------------------------------------------------------------------------


def test_an_answer_comes_with_its_address_and_media_type(server: RawServer) -> None:
    url = server.put("/a.jpg", answer(b"data", Content_Type="Image/JPEG; q=1"))
    assert fetched(url) == (b"data", Fetched(url, "image/jpeg"))
    assert "lookalike/" in server.heard[0][1]


def test_an_answer_of_just_the_limit_is_taken_and_one_byte_more_is_not(
    server: RawServer,
) -> None:
    url = server.put("/a", answer(b"x" * 100))
    assert len(fetched(url, max_bytes=100)[0]) == 100
    error = failure(url, max_bytes=99)
    assert isinstance(error, TooLarge)
    assert error.code == "too_many_bytes"


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "500 Oops", "204 None"])
def test_another_status_is_an_error_that_names_it(server: RawServer, status: str) -> None:
    error = failure(server.put("/a", answer(b"", status)))
    assert isinstance(error, HttpError)
    assert error.code == "http_status"
    assert error.status == int(status[:3])
    assert f"answered {status[:3]}" in error.message


def test_html_in_place_of_an_image_is_named_when_it_is_decoded(server: RawServer) -> None:
    url = server.put("/a.jpg", answer(b"<!doctype html>Log in", Content_Type="image/jpeg"))
    assert refused(fetched(url)[0]).code == "html_not_image"


def test_redirects_are_followed_to_the_answer(server: RawServer) -> None:
    end = server.put("/pictures/a.jpg", answer(jpeg(1)))
    server.redirect("/2", "pictures/a.jpg")
    server.redirect("/1", server.url + "/2")
    data, result = fetched(server.redirect("/0", "/1"))
    assert (data, result.url) == (jpeg(1), end)


def test_as_many_redirects_as_allowed_are_followed_and_no_more(server: RawServer) -> None:
    server.put("/0", answer(b"end"))
    for number in range(1, MAX_REDIRECTS + 2):
        server.redirect(f"/{number}", f"/{number - 1}")
    assert fetched(f"{server.url}/{MAX_REDIRECTS}")[0] == b"end"
    error = failure(f"{server.url}/{MAX_REDIRECTS + 1}")
    assert error.code == "too_many_redirects"


def test_a_redirect_in_a_circle_ends(server: RawServer) -> None:
    assert failure(server.redirect("/a", "/a")).code == "too_many_redirects"
    assert len(server.heard) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "target", ["ftp://host/a", "file:///etc/passwd", "mailto:a@b", "http://[", "data:image/png,x"]
)
def test_a_redirect_to_what_is_no_web_address_is_refused(server: RawServer, target: str) -> None:
    error = failure(server.redirect("/a", target))
    assert isinstance(error, Rejected)
    assert error.code == "bad_url"
    assert "/a redirects to something else" in error.message


def test_the_body_of_a_redirect_is_not_read(server: RawServer) -> None:
    """It may be endless."""
    server.put("/end", answer(b"end"))
    head = b"HTTP/1.1 302 Found\r\nLocation: /end\r\n\r\n"
    assert fetched(server.drip("/a", head, b"x" * 50_000))[0] == b"end"


def test_a_compressed_answer_is_counted_unpacked(server: RawServer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    url = server.put("/a", answer(bomb, Content_Encoding="gzip"))
    assert failure(url, max_bytes=len(bomb)).code == "too_many_bytes"
    small = server.put("/b", answer(gzip.compress(b"data"), Content_Encoding="gzip"))
    assert fetched(small)[0] == b"data"


def test_an_endless_answer_is_given_up_at_the_limit(server: RawServer) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    assert failure(server.drip("/a", head, b"x" * 5_000)).code == "too_many_bytes"


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "broken_answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx", "broken_answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "broken_answer"),
        (answer(b"not packed", Content_Encoding="gzip"), "broken_answer"),
        (b"", "unreachable"),
        (b"220 ftp.example ready\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_000, "unreachable"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000, "unreachable"),
    ],
)
def test_an_answer_against_the_rules_is_an_error(
    server: RawServer, broken: bytes, code: str
) -> None:
    error = failure(server.put("/a", broken))
    assert isinstance(error, Failed)
    assert error.code == code


def test_a_content_length_that_is_too_short_cuts_the_answer(server: RawServer) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    assert fetched(server.put("/a", head + b"abcdef"))[0] == b"abc"


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        error = failure(url)
    assert isinstance(error, Failed)
    assert error.code == "unreachable"


def test_a_host_that_does_not_speak_tls_is_named() -> None:
    def say(listening: socket.socket) -> None:
        connected, _ = listening.accept()
        with connected:
            connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=say, args=(listening,))
        thread.start()
        error = failure(f"https://127.0.0.1:{listening.getsockname()[1]}/a")
        thread.join()
    assert isinstance(error, Failed)
    assert error.code == "bad_certificate"


def test_an_unknown_host_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", unknown_host)
    assert failure("http://nowhere.example/", OPEN).code == "unreachable"
    assert failure("http://nowhere.example/", CLOSED).code == "unreachable"


def test_a_sink_that_cannot_be_written_is_not_blamed_on_the_site(server: RawServer) -> None:
    url = server.put("/a", answer(b"data"))
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):  # noqa: PTH123
        Fetcher(OPEN).fetch(url, full, max_bytes=MAX_BYTES)


# -- time ------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "nothing": (b"", b""),
    "status line": (b"HTTP/1.1 200 ", b"x"),
    "header line": (HEAD + b"A: ", b"b"),
    "headers": (HEAD, b"A: b\r\n"),
    "body with length": (HEAD + b"Content-Length: 9000\r\n\r\n", b"x"),
    "body without length": (HEAD + b"\r\n", b"x"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_the_whole_time_is_limited_however_slowly_a_server_drips(
    server: RawServer, name: str
) -> None:
    error = failure(server.drip("/a", *DRIPS[name]), HURRIED)
    assert isinstance(error, Failed)
    assert error.code == "fetch_timeout"
    assert "took more than 0.3 s" in error.message
    assert "LOOKALIKE_FETCH_TIMEOUT_S" in error.remedy


def test_redirects_share_one_limit(server: RawServer) -> None:
    """Each hop waits, and never as long as the limit."""

    def say(send: Send) -> None:
        server.over.wait(0.1)
        send(b"HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n")

    server.says["/a"] = say
    assert failure(server.url + "/a", HURRIED).code == "fetch_timeout"


def test_a_silent_tls_handshake_is_limited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert failure(url, HURRIED).code == "fetch_timeout"


def test_one_fetcher_serves_many_threads(server: RawServer) -> None:
    slow = server.drip("/slow", HEAD + b"\r\n", b"x")
    quick = server.put("/quick", answer(b"data"))
    fetcher = Fetcher(HURRIED)
    results: list[str] = []

    def fetch(url: str) -> None:
        sink = io.BytesIO()
        try:
            fetcher.fetch(url, sink, max_bytes=MAX_BYTES)
            results.append(sink.getvalue().decode())
        except WorkerError as error:
            results.append(error.code)

    threads = [threading.Thread(target=fetch, args=(url,)) for url in [slow, quick] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["data"] * 3 + ["fetch_timeout"] * 3


# -- private addresses -----------------------------------------------------------------------

PRIVATE_HOSTS = [
    *("127.0.0.1", "127.1", "127.8.9.10", "localhost", "0.0.0.0", "0", "[::1]", "[::]"),
    *("2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "017700000001"),
    *("10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *(
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a00:1]",
        "[fe80::1]",
        "[fc00::1]",
    ),
    *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
    "LOCALHOST",
]


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
def test_a_private_address_is_refused_in_every_spelling(server: RawServer, host: str) -> None:
    server.put("/a", answer(b"secret"))
    error = failure(f"http://{host}:{server.port}/a", CLOSED)
    assert isinstance(error, Rejected)
    assert error.code in ("private_address", "bad_url")
    assert server.heard == []


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]"])
def test_the_refusal_says_what_to_do(host: str) -> None:
    error = failure(f"http://{host}/", CLOSED)
    assert error.code == "private_address"
    assert "LOOKALIKE_ALLOW_PRIVATE_ADDRESSES" in error.remedy
    assert failure(f"https://{host}/", CLOSED).code == "private_address"


def resolver(addresses: dict[str, list[str]]) -> Callable[..., object]:
    """Return a name service: each asking of a name takes its next address, the last one stays."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: object, **kwargs: object) -> object:
        known = addresses.get(host)
        if known is None:
            return real(host, port, *args, **kwargs)  # type: ignore[arg-type]
        address = known.pop(0) if len(known) > 1 else known[0]
        return real(address, port, *args, **kwargs)  # type: ignore[arg-type]

    return look_up


def unknown_host(*_: object, **__: object) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_name_that_resolves_to_a_private_address_is_refused(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver({"inside.example": ["127.0.0.1"]}))
    url = f"http://inside.example:{server.port}/a"
    assert failure(url, CLOSED).code == "private_address"
    assert server.heard == []


def allow(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let one loopback address count as public, so that a test has a site to begin at."""
    real = ip_filter.get_ip_address

    def checked(hostname: str, port: int, allow_loopback: bool) -> object:
        return real(hostname, port, allow_loopback=hostname == address)

    monkeypatch.setattr(ip_filter, "get_ip_address", checked)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{}/b", "//[::1]:{}/b", "http://localhost:{}/"]
)
def test_a_redirect_to_a_private_address_is_refused(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    allow(monkeypatch, "127.0.0.2")
    port = server.port
    with running("127.0.0.2") as public:
        error = failure(public.redirect("/a", target.format(port)), CLOSED)
    assert error.code == "private_address"
    assert "127.0.0.2" in error.message
    assert server.heard == []


def test_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that turns to a private address when it is asked again gains nothing."""
    allow(monkeypatch, "twofaced.example")
    with running("127.0.0.2") as public:
        port = public.port
        names = {"twofaced.example": ["127.0.0.2", "127.0.0.1"]}
        monkeypatch.setattr(socket, "getaddrinfo", resolver(names))
        public.put("/a", answer(b"public"))
        assert fetched(f"http://twofaced.example:{port}/a", CLOSED)[0] == b"public"
        assert f"twofaced.example:{port}" in public.heard[0][1]


# -- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("", "photo.jpg", "/photo.jpg", "www.example.com/a.jpg", "http:", "http://", "http:///a"),
        *("ftp://host/a", "file:///etc/passwd", "data:image/png;base64,AA", "javascript:alert(1)"),
        *(
            "http://host:port/",
            "http://host:99999/",
            "http://host:0/",
            "http://[::1/",
            "https://:1/",
        ),
        *("http://host/\0", "http://host/a\nb", "http://host/\ud800", "http://h/" + "a" * 2_000),
    ],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(Rejected, match="is not a web address") as caught:
        check_url(url)
    assert caught.value.code == "bad_url"
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "url",
    [
        *("http://host", "https://host:8443/a.jpg?b=c#d", "HTTP://HOST/", "http://[::1]:80/"),
        *("http://münchen.example/ä b.jpg", "http://host/" + "a" * 1_900),
    ],
)
def test_web_addresses_are_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize("user", ["user:sesame@", "user@", ":sesame@", "@"])
def test_a_url_with_credentials_is_refused_without_showing_them(user: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_url(f"http://{user}host/a.jpg")
    assert caught.value.code == "url_credentials"
    assert "sesame" not in str(caught.value)


@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://", "http://a.", "//"]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_text_for_a_url_has_a_named_error(text: str, start: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown_host)
        error = failure(start + text, CLOSED)
    assert error.code in ("bad_url", "url_credentials", "unreachable")


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "-", "xn--a", "*.example", ".a"])
@pytest.mark.parametrize("given", [OPEN, CLOSED], ids=["open", "closed"])
def test_a_host_name_that_cannot_be_is_a_named_error(host: str, given: Settings) -> None:
    def look_up(name: str, *_: object, **__: object) -> object:
        name.encode("idna")  # as the real one does first
        return unknown_host()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        assert failure(f"http://{host}/", given).code in ("bad_url", "unreachable")
