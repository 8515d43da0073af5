"""Every route answers as the OpenAPI document says, in success and in failure."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.webui.openapi_check import check
from tests.webui.world import API, World, picture

METHODS = ("get", "post", "put", "patch", "delete")


def operations(spec: Any) -> set[tuple[str, str]]:
    return {
        (method, path) for path, of in spec["paths"].items() for method in METHODS if method in of
    }


def document(world: World) -> Any:
    return world.get("/openapi.json").json


def answers(world: World) -> Iterator[tuple[str, str, TestResponse]]:
    """Use every operation of the API as it is meant; the last one takes an image away."""
    file = picture(1)
    job = world.post(
        "/jobs", data={"files": [(BytesIO(file), "one.png"), (BytesIO(b"x"), "y")], "labels": "a"}
    )
    yield "post", "/jobs", job
    job_id = world.finished(job)["id"]
    yield "get", "/jobs", world.get("/jobs")
    yield "get", "/jobs/{job_id}", world.get(f"/jobs/{job_id}")
    yield "get", "/jobs/{job_id}/items", world.get(f"/jobs/{job_id}/items")
    yield "post", "/jobs/{job_id}/cancel", world.post(f"/jobs/{job_id}/cancel")

    image_id = world.get("/images").json["images"][0]["id"]
    yield "get", "/images", world.get("/images")
    yield "get", "/images/{image_id}", world.get(f"/images/{image_id}")
    yield "get", "/images/{image_id}/thumbnail", world.get(f"/images/{image_id}/thumbnail")
    yield "get", "/images/{image_id}/original", world.get(f"/images/{image_id}/original")

    by_id = world.post("/searches", json={"image_id": image_id})
    yield "post", "/searches", by_id
    ticket = world.search(file=file)["ticket"]
    yield "get", "/searches/{ticket}", world.get(f"/searches/{ticket}")
    yield "get", "/searches/{ticket}/thumbnail", world.get(f"/searches/{ticket}/thumbnail")
    yield "delete", "/searches/{ticket}", world.delete(f"/searches/{ticket}")

    yield "get", "/labels", world.get("/labels")
    yield "get", "/status", world.get("/status")
    yield "delete", "/images/{image_id}", world.delete(f"/images/{image_id}")


def test_every_route_gives_what_the_document_describes(world: World) -> None:
    spec = document(world)
    met = set()
    for method, path, response in answers(world):
        with response:
            assert response.status_code < 300, (method, path, response.text)
            check(spec, method, API + path, response)
        met.add((method, API + path))
    assert met == operations(spec), "a route is without a test, or a test without a route"


UNKNOWN = {"{ticket}": "nobody", "{job_id}": "nobody", "{image_id}": "0" * 32}


def bad_requests(spec: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give every operation every kind of bad request that can be derived from the document."""
    for method, path in sorted(operations(spec)):
        operation = spec["paths"][path][method]
        yield method, path, {"query_string": {"no_such_parameter": "1"}}
        if "{" in path:
            yield method, path, {}
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query" and parameter["schema"].get("type") != "string":
                yield method, path, {"query_string": {parameter["name"]: "x"}}
        if "requestBody" in operation:
            yield method, path, {"data": b"x", "content_type": "text/plain"}
            yield method, path, {"data": b"{", "content_type": "application/json"}
            yield method, path, {"json": []}
            yield method, path, {"json": {"no_such_field": 1}}
            yield method, path, {"data": {"no_such_field": "1"}}
        if method != "get":
            yield method, path, {"headers": {"Sec-Fetch-Site": "cross-site"}}


def test_every_route_describes_how_it_refuses(idle: World) -> None:
    spec = document(idle)
    tried = 0
    for method, path, request in bad_requests(spec):
        url = path
        for name, value in UNKNOWN.items():
            url = url.replace(name, value)
        response = idle.http.open(url, method=method.upper(), **request)
        assert 400 <= response.status_code < 500, (method, path, request, response.text)
        check(spec, method, path, response)
        assert response.json["error"]["status"] == response.status_code
        assert response.json["error"]["remedy"], "a refusal says what to do"
        tried += 1
    assert tried > len(operations(spec))


@pytest.mark.parametrize("path", ["/api/v1/nowhere", "/api/v1/searches/a/b", "/nowhere"])
def test_an_unknown_address_gets_the_error_body(idle: World, path: str) -> None:
    response = idle.http.get(path)
    assert response.status_code == 404
    assert response.json["error"]["code"] == "not_found"


def test_a_wrong_method_gets_the_error_body_and_the_right_ones(idle: World) -> None:
    spec = document(idle)
    for path, of in spec["paths"].items():
        right = set(METHODS) & set(of)
        for method in set(METHODS) - right:
            response = idle.http.open(path, method=method.upper())
            assert response.status_code == 405, (method, path)
            assert response.json["error"]["code"] == "method_not_allowed"
            allowed = {each.lower() for each in response.headers["Allow"].split(", ")}
            assert allowed - {"head", "options"} == right


def test_a_ticket_that_was_never_given_out_is_not_an_expired_one(idle: World) -> None:
    response = idle.get("/searches/nobody")
    assert (response.status_code, response.json["error"]["code"]) == (404, "unknown_ticket")


def test_every_operation_and_every_field_is_explained(idle: World) -> None:
    spec = document(idle)
    for method, path in operations(spec):
        operation = spec["paths"][path][method]
        assert operation["summary"], (method, path)
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["name"] == "limit", (path, parameter)
    for name, schema in spec["components"]["schemas"].items():
        assert schema["properties"], name


def test_the_readable_reference_shows_every_route(idle: World) -> None:
    page = idle.get("/docs").text
    for method, path in operations(document(idle)):
        assert f"<code>{path}</code>" in page
        assert method.upper() in page
