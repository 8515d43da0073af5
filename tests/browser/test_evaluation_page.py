"""The page of `lookalike evaluate`, as a file in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from tqdm import tqdm

from models.bundle import load_bundle
from models.engines import open_engine
from ops.evaluation.data import read_split
from ops.evaluation.record import record_of
from ops.evaluation.report import prepare, write_report
from ops.evaluation.run import Options, evaluate
from tests.browser.conftest import PATIENCE_MS
from tests.ops.coloured import class_folders, tiny_bundle

NARROW = {"width": 360, "height": 700}


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A report that compares two bundles."""
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    data = class_folders(tmp_path / "data", 12)
    (data / "red").rename(data / "<b>a & b with a long long long long long long name")
    split = read_split(data, None, sample=4, seed=0)
    options = Options(k=None, seed=0, searches=4, cache=None)
    found = []
    for bits in (5, 12):
        path = tiny_bundle(tmp_path / f"b{bits}", name=f"bits-{bits}", bits=bits)
        with open_engine(load_bundle(path), threads=1) as engine:
            found.append(evaluate(engine, split, options))
    out = tmp_path / "out"
    prepare(out)
    records = [record_of(each, {"data": str(data)}) for each in found]
    write_report(out, found, records, classes=split.database.classes, seed=0)
    return out / "report.html"


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, opened; a fault or a request for anything else fails the test."""
    context = browser.new_context(viewport=NARROW, color_scheme="dark")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: faults.append(asked.url) if _elsewhere(asked.url) else None)
    page.goto(report.as_uri())
    yield page
    context.close()
    assert not faults, faults


def _elsewhere(url: str) -> bool:
    return not url.startswith(("data:", "file:"))


def test_the_report_shows_its_pictures_and_fits_a_phone_in_the_dark(page: Page) -> None:
    images = page.locator("img")
    assert images.count() == 3 + 4 * (1 + 4 * 10)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != dark


def test_the_report_can_be_read_without_seeing_it(page: Page) -> None:
    headings = page.get_by_role("heading", level=2).all_inner_texts()
    assert headings[0] == "Rankings"
    assert "Examples" in headings
    assert page.get_by_role("heading", level=1).inner_text().endswith("bits-5 and bits-12")
    for figure in page.locator("figure img").all():
        assert len(figure.get_attribute("alt") or "") > 20
    # Right and wrong are words, not colours alone.
    assert page.get_by_text("right:", exact=True).count() == page.locator("li.right").count()
    assert page.get_by_text("wrong:", exact=True).count() == page.locator("li.wrong").count()
    assert page.get_by_text("<b>a & b").count() > 0
    # Tables that scroll can be reached from the keyboard.
    for region in page.get_by_role("region").all():
        assert region.get_attribute("tabindex") == "0"
