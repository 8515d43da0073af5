"""The pages as the server sends them; what scripts make of them is tested in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import webui
from tests.webui.conftest import MakeWorld
from tests.webui.world import World

ROOT = Path(webui.__file__).parent
PAGES = ["/", "/jobs", "/jobs/some-job", "/collection", "/api/v1/docs", "/nowhere"]
SCRIPTS = sorted((ROOT / "static" / "js").glob("*.js"))


class Elements(HTMLParser):
    """The elements of a page: name and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(world: World, path: str) -> list[tuple[str, dict[str, str | None]]]:
    return Elements(world.http.get(path, headers={"Accept": "text/html"}).text).found


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_nothing_that_the_policy_forbids(idle: World, path: str) -> None:
    for tag, attributes in elements(idle, path):
        assert tag != "style", "styles come from a file"
        assert tag != "script" or attributes.get("src"), "scripts come from files"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "action"):
            assert not (attributes.get(name) or "").startswith(("http", "//"))


@pytest.mark.parametrize("path", PAGES)
def test_every_file_that_a_page_names_is_served(idle: World, path: str) -> None:
    named = {a.get("href") or a.get("src") for _, a in elements(idle, path)}
    urls = {url for url in named if url and not url.startswith("#")}
    assert any(url.endswith(".css") for url in urls)
    for url in urls:
        with idle.http.get(url) as response:
            assert response.status_code == 200, url


@pytest.mark.parametrize("path", PAGES)
def test_every_field_has_a_label_and_every_image_a_text(idle: World, path: str) -> None:
    found = elements(idle, path)
    labelled = {a.get("for") for tag, a in found if tag == "label"}
    for tag, attributes in found:
        if tag in ("input", "select", "textarea") and attributes.get("type") != "radio":
            assert attributes["id"] in labelled, attributes
        if tag == "img":
            assert "alt" in attributes
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_make_markup_or_code_from_data(script: Path) -> None:
    text = script.read_text()
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert not re.search(forbidden, text)
    imported = re.findall(r'from "\./([\w.]+)"', text)
    assert all((script.parent / name).is_file() for name in imported)


def test_a_job_id_is_only_ever_text(idle: World) -> None:
    page = idle.http.get('/jobs/"><script>alert(1)<%2Fscript>').text
    assert "<script>alert" not in page


def test_the_jobs_page_says_how_to_allow_folders_until_some_are(
    idle: World, make_world: MakeWorld, tmp_path: Path
) -> None:
    assert "LOOKALIKE_FOLDER_ROOTS" in idle.http.get("/jobs").text
    page = make_world(folder_roots=(tmp_path,)).http.get("/jobs").text
    assert str(tmp_path) in page


def test_health_is_good(idle: World) -> None:
    assert idle.http.get("/healthz").json == {"status": "ok"}
