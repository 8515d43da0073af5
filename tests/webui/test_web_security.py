"""What other sites cannot do through a visitor's browser."""

from __future__ import annotations

import pytest

from tests.webui.test_web_errors import site_with
from tests.webui.world import API, World
from webui.app import create_app
from workers.errors import NotFound
from workers.settings import Settings

PAGES = ["/", "/jobs", "/jobs/x", "/collection", f"{API}/docs", f"{API}/status", "/nowhere"]


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.nip.io"]
)
def test_a_name_that_is_not_ours_is_refused(host: str) -> None:
    client = create_app(object(), Settings()).test_client()  # type: ignore[arg-type]
    for path in ("/", f"{API}/nowhere"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == 400, path


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "192.168.1.7", "[fd00::1]"],
)
def test_loopback_names_and_literal_addresses_are_answered(host: str) -> None:
    client = create_app(object(), Settings()).test_client()  # type: ignore[arg-type]
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_names_from_the_settings_are_answered() -> None:
    settings = Settings(host="pictures", allowed_hosts=("photos.example", ".team.example"))
    client = create_app(object(), settings).test_client()  # type: ignore[arg-type]
    for host, status in [
        ("pictures:8080", 200),
        ("photos.example", 200),
        ("a.team.example", 200),
        ("x.photos.example", 400),
    ]:
        assert client.get("/", headers={"Host": host}).status_code == status, host


CHANGES = [
    ("POST", f"{API}/searches"),
    ("DELETE", f"{API}/searches/x"),
    ("POST", f"{API}/jobs"),
    ("POST", f"{API}/jobs/x/cancel"),
    ("DELETE", f"{API}/images/x"),
]
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
]
OURS = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost"},
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_only_our_pages_and_programs_can_change_something(method: str, path: str) -> None:
    client = site_with(NotFound("Reached the client.")).test_client()
    body = {"kind": "urls", "urls": ["x"]} if path.endswith("jobs") else {"image_id": "x"}
    for headers in FOREIGN:
        response = client.open(path, method=method, headers=headers, json=body)
        assert (response.status_code, response.json["error"]["code"]) == (403, "cross_site")
    for headers in OURS:
        response = client.open(path, method=method, headers=headers, json=body)
        assert response.json["error"]["message"] == "Reached the client.", headers


def test_all_routes_that_change_something_are_tried_above(idle: World) -> None:
    unsafe = {
        (method, rule.rule)
        for rule in idle.app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("GET", "HEAD", "OPTIONS")
    }
    assert len(unsafe) == len(CHANGES)


def test_other_sites_may_look_but_not_read(idle: World) -> None:
    response = idle.http.get("/", headers={"Sec-Fetch-Site": "cross-site", "Origin": "http://x"})
    assert response.status_code == 200  # a link from elsewhere works
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_carries_the_protective_headers(idle: World, path: str) -> None:
    headers = idle.http.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Set-Cookie" not in headers
