"""Whatever goes wrong gets the one body; nothing of the inside leaks."""

from __future__ import annotations

import logging

import pytest
from flask import Flask

from tests.webui.world import API, World
from webui.app import create_app
from webui.errors import RETRY_AFTER_S
from workers.errors import (
    Conflict,
    Failed,
    InvalidRequest,
    NotFound,
    Rejected,
    TooLarge,
    Unavailable,
    WorkerError,
)
from workers.settings import Settings


class Refusing:
    """A client that answers everything with one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> object:
        def refuse(*args: object, **kwargs: object) -> None:
            raise self.error

        return refuse


def site_with(error: Exception) -> Flask:
    return create_app(Refusing(error), Settings())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (InvalidRequest, 400),
        (NotFound, 404),
        (Conflict, 409),
        (TooLarge, 413),
        (Rejected, 422),
        (Failed, 502),
        (Unavailable, 503),
    ],
)
def test_each_error_of_the_workers_has_its_status(kind: type[WorkerError], status: int) -> None:
    error = kind("It went wrong.", remedy="Do this.", code="some_code")
    response = site_with(error).test_client().get(f"{API}/jobs")
    assert response.status_code == status
    assert response.json == {
        "error": {
            "code": "some_code",
            "message": "It went wrong.",
            "remedy": "Do this.",
            "status": status,
        }
    }


def test_no_error_of_the_workers_is_forgotten() -> None:
    kinds = {each for each in WorkerError.__subclasses__() if each.__name__ != "SettingsError"}
    for kind in kinds:
        response = site_with(kind("Sorry.")).test_client().get(f"{API}/jobs")
        assert response.status_code != 500, f"{kind} is not translated"


def test_what_is_unavailable_says_when_to_try_again() -> None:
    response = site_with(Unavailable("Down.")).test_client().get(f"{API}/jobs")
    assert response.headers["Retry-After"] == str(RETRY_AFTER_S)


def test_a_surprise_is_logged_and_answered_without_its_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        response = site_with(KeyError("the secret")).test_client().get(f"{API}/jobs")
    assert (response.status_code, response.json["error"]["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert "secret" in caplog.text
    assert f"GET {API}/jobs" in caplog.text


def test_health_is_bad_when_the_collection_cannot_be_reached() -> None:
    assert site_with(Unavailable("Down.")).test_client().get("/healthz").status_code == 503


def test_a_browser_is_shown_a_page_and_a_program_the_body(idle: World) -> None:
    page = idle.http.get("/nowhere", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert "/api/v1/docs" in page.text
    for accept in ("*/*", "application/json"):
        body = idle.http.get("/nowhere", headers={"Accept": accept})
        assert body.json["error"]["status"] == 404
    api = idle.http.get(f"{API}/nowhere", headers={"Accept": "text/html"})
    assert api.is_json


def test_what_is_not_there_is_told_in_words_of_our_own(idle: World) -> None:
    page = idle.http.get("/nowhere", headers={"Accept": "text/html"})
    assert "<h1>There is nothing at this address.</h1>" in page.text


@pytest.mark.parametrize("body", [b"{", b"", b"\xff", b"{'k': 1}"])
def test_a_body_that_is_no_json_is_told_so(idle: World, body: bytes) -> None:
    for path in ("/searches", "/jobs"):
        response = idle.post(path, data=body, content_type="application/json")
        error = response.json["error"]
        assert (response.status_code, error["code"]) == (400, "bad_json")
        assert error["message"] == "The body is not valid JSON."


def test_a_body_over_the_limit_is_refused(idle: World) -> None:
    limit = idle.app.config["MAX_CONTENT_LENGTH"]
    response = idle.post(
        "/jobs",
        content_type="multipart/form-data; boundary=x",
        environ_overrides={"CONTENT_LENGTH": str(limit + 1)},
    )
    assert (response.status_code, response.json["error"]["code"]) == (413, "too_large")
    assert f"{limit:,}" in response.json["error"]["message"]
