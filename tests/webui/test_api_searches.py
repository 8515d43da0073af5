"""Searches through the API, on real workers."""

from __future__ import annotations

import time
from io import BytesIO

from tests.webui.conftest import MakeWorld
from tests.webui.world import PATIENCE_S, World, picture


def test_an_uploaded_image_finds_itself_first_and_its_ticket_can_be_asked_again(
    world: World,
) -> None:
    files = [picture(seed) for seed in range(4)]
    world.add(*files)
    search = world.search(file=files[2], name="../../where/ever.png", k=3)
    assert (search["state"], search["k"], len(search["hits"])) == ("done", 3, 3)
    assert search["query"] == {"kind": "upload", "label": "ever.png", "image_id": None}
    best = search["hits"][0]
    assert (best["rank"], best["hamming"], best["sources"]) == (1, 0, ["upload:2.png"])
    assert best["distance"] < 1e-3
    assert search["report"]["complete"]
    assert search == world.get(f"/searches/{search['ticket']}").json


def test_a_hit_can_be_searched_with_and_looked_at(world: World) -> None:
    file = picture(1)
    world.add(file, picture(2))
    hit = world.search(file=file)["hits"][0]
    again = world.search(image_id=hit["id"])
    assert again["query"]["image_id"] == hit["id"]
    assert again["hits"][0]["id"] == hit["id"]
    with world.http.get(hit["original_url"]) as original:
        assert original.data == file
        assert original.mimetype == "image/png"
    with world.http.get(hit["thumbnail_url"]) as thumbnail:
        assert thumbnail.data.startswith(b"\xff\xd8")


def test_pages_of_an_answer_fit_together_while_images_come_and_go(world: World) -> None:
    world.add(*[picture(seed) for seed in range(7)])
    whole = world.search(file=picture(2))
    assert (whole["total"], whole["offset"], len(whole["hits"])) == (7, 0, 7)
    ticket = whole["ticket"]
    pages = []
    for offset in range(0, 9, 3):
        page = world.get(f"/searches/{ticket}", query_string={"offset": offset, "limit": 3}).json
        assert (page["total"], page["offset"]) == (7, offset)
        pages += page["hits"]
        world.delete(f"/images/{whole['hits'][offset % 7]['id']}")
        world.add(picture(100 + offset))
    assert pages == whole["hits"]
    assert world.get(f"/searches/{ticket}", query_string={"offset": 5}).json["hits"] == pages[5:]
    assert world.get(f"/searches/{ticket}", query_string={"offset": 99}).json["hits"] == []


def test_a_page_that_cannot_be_meant_is_refused(idle: World) -> None:
    for query in ({"offset": -1}, {"limit": 0}, {"limit": "all"}, {"offset": 10**9}):
        response = idle.get("/searches/nobody", query_string=query)
        assert (response.status_code, response.json["error"]["code"]) == (422, "invalid_request")
        assert next(iter(query)) in response.json["error"]["message"]


def test_a_file_that_is_no_image_fails_with_a_reason(world: World) -> None:
    search = world.search(file=b"%PDF-1.7", name="paper.pdf")
    assert search["state"] == "failed"
    assert search["hits"] == []
    assert search["error"]["code"]
    assert search["error"]["remedy"]


def test_an_empty_file_and_a_strange_address_are_refused_at_once(idle: World) -> None:
    empty = idle.post("/searches", data={"file": (BytesIO(), "e.png")})
    assert (empty.status_code, empty.json["error"]["code"]) == (422, "empty")
    for url in ("ftp://example.org/a.png", "file:///etc/passwd", "no address"):
        assert idle.post("/searches", json={"url": url}).status_code == 422


def test_k_and_effort_out_of_range_and_more_than_one_query_are_refused(idle: World) -> None:
    url = "http://example.org/a.png"
    for asked in (
        {"url": url, "k": 0},
        {"url": url, "k": 10**9},
        {"url": url, "effort": 0},
        {"url": url, "effort": 11},
        {"url": url, "image_id": "0" * 32},
        {},
    ):
        response = idle.post("/searches", json=asked)
        assert response.status_code == 400, asked
        assert response.json["error"]["remedy"]
    assert idle.post("/searches", json={"url": url, "k": "many"}).status_code == 422


def test_a_second_file_is_refused_not_ignored(idle: World) -> None:
    files = [(BytesIO(picture(seed)), f"{seed}.png") for seed in range(2)]
    response = idle.post("/searches", data={"file": files})
    assert response.status_code == 422
    assert response.json["error"]["message"] == "file: Give it once only."


def test_an_image_over_the_limit_is_refused(make_world: MakeWorld) -> None:
    world = make_world(max_image_bytes=1000)
    response = world.post("/searches", data={"file": (BytesIO(b"x" * 1001), "b")})
    assert (response.status_code, response.json["error"]["code"]) == (413, "too_many_bytes")


def test_cancelling_is_final(world: World) -> None:
    world.add(picture(1))
    asked = world.post(
        "/searches", json={"image_id": world.get("/images").json["images"][0]["id"]}
    )
    cancelled = world.delete(asked.headers["Location"].removeprefix("/api/v1")).json
    later = world.http.get(asked.headers["Location"], query_string={"wait": PATIENCE_S}).json
    assert cancelled["state"] in ("cancelled", "done")  # a worker may have been quicker
    assert later["state"] == cancelled["state"]


def test_an_expired_result_is_told_by_its_state(make_world: MakeWorld) -> None:
    world = make_world(serve=True, result_hours=0.0, sweep_interval_s=0.05)
    world.add(picture(1))
    ticket = world.search(file=picture(1))["ticket"]
    deadline = time.monotonic() + PATIENCE_S
    while (search := world.get(f"/searches/{ticket}").json)["state"] != "expired":
        assert time.monotonic() < deadline, search["state"]
        time.sleep(0.02)
    assert search["hits"] == []
    assert search["report"] is None
    assert world.get(f"/searches/{ticket}/thumbnail").status_code == 404
