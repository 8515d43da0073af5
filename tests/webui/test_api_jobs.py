"""Jobs through the API, on real workers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from tests.webui.conftest import MakeWorld
from tests.webui.world import World, picture
from webui.uploads import MAX_FILES


def test_every_uploaded_file_gets_its_outcome_and_a_reason_where_it_is_bad(world: World) -> None:
    job = world.add(picture(1), picture(2), picture(1), b"no image", label="my files")
    assert (job["kind"], job["state"], job["label"]) == ("upload", "done", "my files")
    counts = job["counts"]
    assert counts == {
        "submitted": 4,
        "indexed": 2,
        "duplicate": 1,
        "rejected": 1,
        "failed": 0,
        "cancelled": 0,
        "pending": 0,
    }
    rejected = world.get(f"/jobs/{job['id']}/items?state=rejected").json
    [item] = rejected["items"]
    assert (item["source"], item["state"]) == ("upload:3.png", "rejected")
    assert item["problem"]["code"]
    assert item["problem"]["remedy"]
    assert rejected["next"] is None


def test_a_job_tells_what_its_images_are_labelled_with(world: World, tmp_path: Path) -> None:
    assert world.add(picture(1))["labels"] == []
    assert world.add(picture(2), labels=[" cats", "2026", "cats"])["labels"] == ["cats", "2026"]
    asked = {"kind": "urls", "urls": ["ftp://example.org/a.png"], "labels": ["été"]}
    assert world.post("/jobs", json=asked).json["labels"] == ["été"]


def test_what_cannot_be_a_label_is_refused_by_name(idle: World) -> None:
    for labels in (["a", ""], ["x" * 65], ["a,b"], ["a\nb"], [str(n) for n in range(33)]):
        asked = {"kind": "urls", "urls": ["http://example.org/a.png"], "labels": labels}
        response = idle.post("/jobs", json=asked)
        assert (response.status_code, response.json["error"]["code"]) == (400, "bad_labels")
        assert response.json["error"]["remedy"]


def test_items_come_in_pages_that_add_up(world: World) -> None:
    job = world.add(*(picture(seed) for seed in range(5)))
    seen = []
    after: int | None = 0
    while after is not None:
        page = world.get(f"/jobs/{job['id']}/items", query_string={"limit": 2, "after": after})
        seen += [item["source"] for item in page.json["items"]]
        after = page.json["next"]
    assert seen == [f"upload:{number}.png" for number in range(5)]


def test_jobs_are_listed_newest_first_in_pages(world: World) -> None:
    made = [world.add(picture(seed))["id"] for seed in range(3)]
    first = world.get("/jobs?limit=2").json
    second = world.get("/jobs", query_string={"limit": 2, "before": first["next"]}).json
    listed = [job["id"] for job in (*first["jobs"], *second["jobs"])]
    assert listed == made[::-1]
    assert second["next"] is None


def test_a_page_before_no_job_is_refused(idle: World) -> None:
    assert idle.get("/jobs?before=zzz").status_code == 404
    assert idle.get("/images?before=zzz").status_code == 400


def test_only_folders_below_the_roots_are_taken_from_the_server(
    make_world: MakeWorld, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "inner").mkdir(parents=True)
    (allowed / "inner" / "a.png").write_bytes(picture(1))
    world = make_world(folder_roots=(allowed,))
    taken = world.post("/jobs", json={"kind": "folder", "path": str(allowed / "inner")})
    assert world.finished(taken)["counts"]["indexed"] == 1
    for path in (tmp_path, allowed / "..", Path("/etc")):
        refused = world.post("/jobs", json={"kind": "folder", "path": str(path)})
        assert (refused.status_code, refused.json["error"]["code"]) == (400, "folder_not_allowed")
    missing = world.post("/jobs", json={"kind": "folder", "path": str(allowed / "none")})
    assert missing.status_code == 422


def test_addresses_that_cannot_be_had_become_items_with_a_reason(world: World) -> None:
    urls = ["http://127.0.0.1:9/a.png", "no address at all"]
    job = world.finished(world.post("/jobs", json={"kind": "urls", "urls": urls}))
    assert job["counts"]["submitted"] == 2
    assert job["counts"]["indexed"] == job["counts"]["pending"] == 0
    items = world.get(f"/jobs/{job['id']}/items").json["items"]
    assert {item["source"] for item in items} == set(urls)
    assert all(item["problem"]["remedy"] for item in items)


def test_a_job_says_what_its_kind_needs(idle: World) -> None:
    for kind, needed in (("folder", "path"), ("urls", "urls"), ("crawl", "seed")):
        response = idle.post("/jobs", json={"kind": kind})
        assert response.status_code == 422
        assert f"{needed}: " in response.json["error"]["message"]
    upload = idle.post("/jobs", json={"kind": "upload"})
    assert "multipart/form-data" in upload.json["error"]["message"]
    assert idle.post("/jobs", json={"kind": "urls", "urls": []}).status_code == 400
    deep = {"kind": "crawl", "seed": "http://example.org/", "max_depth": 10**6}
    assert idle.post("/jobs", json=deep).status_code == 400


def test_more_files_than_a_request_may_hold_are_refused(idle: World) -> None:
    files = [(BytesIO(b"x"), f"{number}.png") for number in range(MAX_FILES + 50)]
    response = idle.post("/jobs", data={"files": files})
    assert (response.status_code, response.json["error"]["code"]) == (413, "too_large")


def test_a_finished_job_stays_finished_when_it_is_cancelled(world: World) -> None:
    job = world.add(picture(1))
    assert world.post(f"/jobs/{job['id']}/cancel").json["state"] == "done"
