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


def test_a_search_finds_only_what_fits_and_repeats_what_was_asked(world: World) -> None:
    files = [picture(seed) for seed in range(6)]
    world.add(*files[:3], labels=["cats", "2025"])
    world.add(*files[3:], labels="dogs")
    options = {"labels": ["dogs", "birds"], "source": "upload:", "since": "2020-01-01", "k": 5}
    for search in (
        world.search(file=files[0], **options),
        world.search(image_id=world.search(file=files[0], k=1)["hits"][0]["id"], **options),
    ):
        assert [hit["labels"] for hit in search["hits"]] == [["dogs"]] * 3
        assert [hit["rank"] for hit in search["hits"]] == [1, 2, 3]
        assert all(time.time() - 3600 < hit["added_at"] < time.time() for hit in search["hits"])
        assert (search["labels"], search["source"]) == (["dogs", "birds"], "upload:")
        assert (search["since"], search["until"], search["k"]) == (1_577_836_800.0, None, 5)
        assert search["report"]["complete"]
    nearest = world.search(file=files[0], max_distance=0.01)
    assert [hit["sources"] for hit in nearest["hits"]] == [["upload:0.png"]]
    for nothing in ({"until": 1_577_836_800}, {"source": "/srv/"}, {"labels": ["none"]}):
        found = world.search(file=files[0], **nothing)
        assert (found["state"], found["hits"], found["total"]) == ("done", [], 0)
    counts = [(each["label"], each["images"]) for each in world.get("/labels").json["labels"]]
    assert counts == [("2025", 3), ("cats", 3), ("dogs", 3)]


def test_near_duplicates_are_folded_into_the_nearest(world: World) -> None:
    files = [picture(1), picture(1, side_px=96), picture(1, side_px=128), picture(2)]
    world.add(*files)
    apart = world.search(file=files[0])
    assert [hit["duplicates"] for hit in apart["hits"]] == [[]] * 4
    # Of features alone: codes count into the distance of a hit, and not into this one.
    folded = world.search(file=files[0], collapse=0.02)
    assert [hit["id"] for hit in folded["hits"]] == [
        apart["hits"][0]["id"],
        apart["hits"][3]["id"],
    ]
    assert folded["hits"][0]["duplicates"] == [hit["id"] for hit in apart["hits"][1:3]]
    assert (folded["total"], folded["report"]["folded"]) == (2, 2)


def test_an_option_that_cannot_be_meant_is_refused_by_its_name(idle: World) -> None:
    url = "http://example.org/a.png"
    for options, code in (
        ({"max_distance": -1}, "bad_max_distance"),
        ({"collapse": -1}, "bad_collapse"),
        ({"collapse": 0.1, "k": 1_001}, "bad_k"),
        ({"labels": [""]}, "bad_labels"),
        ({"source": "x" * 5_000}, "bad_source"),
        ({"since": "yesterday"}, "bad_since"),
        ({"until": "2026-02-30"}, "bad_until"),
        ({"since": 5, "until": "1970-01-01"}, "bad_until"),
    ):
        refused = idle.post("/searches", json={"url": url, **options})
        assert (refused.status_code, refused.json["error"]["code"]) == (400, code), options
        assert refused.json["error"]["remedy"]
    for wrong in ({"since": True}, {"until": []}, {"labels": "cats"}, {"max_distance": "near"}):
        refused = idle.post("/searches", json={"url": url, **wrong})
        assert (refused.status_code, refused.json["error"]["code"]) == (422, "invalid_request")
        assert next(iter(wrong)) in refused.json["error"]["message"]


def test_the_largest_k_is_described(idle: World) -> None:
    schemas = idle.get("/openapi.json").json["components"]["schemas"]
    most = idle.get("/status").json["max_k"]
    assert most >= 1_000
    for name in ("SearchJson", "SearchForm"):
        assert schemas[name]["properties"]["k"]["maximum"] == most


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
