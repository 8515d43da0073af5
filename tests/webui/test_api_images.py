"""The collection through the API."""

from __future__ import annotations

from tests.webui.world import World, picture


def test_images_are_listed_newest_first_in_pages(world: World) -> None:
    for seed in range(3):
        world.add(picture(seed))
    first = world.get("/images?limit=2").json
    second = world.get("/images", query_string={"limit": 2, "before": first["next"]}).json
    images = [*first["images"], *second["images"]]
    assert first["count"] == len(images) == 3
    assert second["next"] is None
    added = [image["added_at"] for image in images]
    assert added == sorted(added, reverse=True)
    assert len({image["id"] for image in images}) == 3


def test_a_deleted_image_is_neither_listed_nor_found_again(world: World) -> None:
    files = [picture(1), picture(2)]
    world.add(*files)
    gone = world.search(file=files[0])["hits"][0]["id"]
    assert world.delete(f"/images/{gone}").status_code == 204
    assert world.get(f"/images/{gone}").status_code == 404
    assert world.get(f"/images/{gone}/thumbnail").status_code == 404
    assert gone not in {hit["id"] for hit in world.search(file=files[0])["hits"]}
    assert world.get("/images").json["count"] == 1
    assert world.delete(f"/images/{gone}").status_code == 404


def test_image_files_are_kept_by_browsers_and_cannot_run_anything(world: World) -> None:
    world.add(picture(1, format_="PNG"), picture(2, format_="JPEG"))
    for image in world.get("/images").json["images"]:
        for url in (image["thumbnail_url"], image["original_url"]):
            with world.http.get(url) as response:
                assert response.status_code == 200
                assert "sandbox" in response.headers["Content-Security-Policy"]
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Content-Disposition"].startswith("inline")
                assert "immutable" in response.headers["Cache-Control"]
                tag = response.headers["ETag"]
            with world.http.get(url, headers={"If-None-Match": tag}) as again:
                assert again.status_code == 304
        with world.http.get(image["original_url"]) as original:
            assert original.mimetype == f"image/{image['format'].lower()}"


def test_a_strange_page_mark_is_refused(idle: World) -> None:
    response = idle.get("/images?before=yesterday")
    assert response.status_code == 400
    assert response.json["error"]["remedy"]
