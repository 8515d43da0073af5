"""A person with a browser: search, search again with a hit, add images, delete one."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE_MS, Site
from tests.webui.world import picture

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Six image files that differ."""
    paths = [tmp_path / f"picture-{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number, side_px=160))
    return paths


def fill(site: Site, files: list[Path]) -> None:
    """Bring files into the collection without a browser."""
    job = site.client.ingest_uploads([(file.name, BytesIO(file.read_bytes())) for file in files])
    assert site.client.wait_job(job.id, PATIENCE_MS / 1000).counts.indexed == len(files)


def wide_open(page: Page) -> bool:
    """Return whether the page is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def test_search_with_a_file_then_with_a_hit_then_go_back(
    page: Page, site: Site, files: list[Path]
) -> None:
    fill(site, files)
    page.goto("/")
    page.set_input_files("#file", files[2])
    expect(page.locator("#state .badge")).to_have_text("done")
    hits = page.locator("#hits .card")
    expect(hits).to_have_count(len(files))
    expect(hits.first.locator(".distance")).to_contain_text("0.000")
    expect(hits.first).to_contain_text("picture-2.png")
    expect(page.locator("#report")).to_contain_text("Every image was considered")
    first_address = page.url
    assert "ticket=" in first_address

    second = hits.nth(1).locator("a.shot")
    name = second.get_attribute("aria-label") or ""
    second.click()
    page.wait_for_url(lambda url: "ticket=" in url and url != first_address)
    expect(hits.first.locator("a.shot")).to_have_attribute("aria-label", name)
    expect(page.locator("#state .badge")).to_have_text("done")

    page.go_back()
    expect(hits.first).to_contain_text("picture-2.png")
    assert page.url == first_address


def test_a_kept_result_is_shown_to_whoever_has_its_address(
    page: Page, browser: Browser, site: Site, files: list[Path]
) -> None:
    fill(site, files)
    page.goto("/")
    page.set_input_files("#file", files[0])
    expect(page.locator("#hits .card")).to_have_count(len(files))
    other = browser.new_context().new_page()
    other.goto(page.url)
    expect(other.locator("#hits .card")).to_have_count(len(files))
    expect(other.locator("#query img")).to_be_visible()
    other.context.close()


def test_hits_are_turned_page_by_page_also_from_the_keyboard(page: Page, site: Site) -> None:
    files = [(f"{seed}.png", BytesIO(picture(seed))) for seed in range(30)]
    job = site.client.ingest_uploads(files)
    site.client.wait_job(job.id, PATIENCE_MS / 1000)
    image = site.client.recent().images[0]
    page.goto("/")
    page.fill("#k", "30")
    page.evaluate("id => history.replaceState({}, '', `/?image=${id}`)", image.id)
    page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")
    hits = page.locator("#hits .card")
    expect(hits).to_have_count(24)
    expect(page.locator("#shown")).to_have_text("1 to 24 of 30 hits")
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    page.get_by_role("button", name="Next").press("Enter")
    expect(page.locator("#shown")).to_have_text("25 to 30 of 30 hits")
    expect(hits).to_have_count(6)
    expect(page.locator("#hits")).to_be_focused()
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    second = [hits.nth(place).inner_text() for place in range(6)]
    page.reload()
    expect(hits).to_have_count(6)
    assert [hits.nth(place).inner_text() for place in range(6)] == second
    page.go_back()
    expect(page.locator("#shown")).to_have_text("1 to 24 of 30 hits")


def test_labels_given_at_the_upload_narrow_a_search(
    page: Page, site: Site, files: list[Path]
) -> None:
    fill(site, files[:3])
    page.goto("/jobs")
    page.set_input_files("#files", files[3:])
    page.fill("#labels", "cats, 2026")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_text("done")
    expect(page.locator("#facts")).to_contain_text("labelled cats, 2026")

    page.set_viewport_size({"width": 360, "height": 700})
    page.goto("/")
    page.locator("#more-options summary").click()
    page.get_by_text("cats", exact=True).click()
    page.get_by_label("Fold near-duplicates into one hit").check()
    page.fill("#since", "2020-01-31")
    expect(page.locator("#in-use")).to_have_text("3 in use")
    assert not wide_open(page)
    page.set_input_files("#file", files[0])
    expect(page.locator("#hits .card")).to_have_count(1)  # these pictures are much alike
    page.get_by_text("2 near-duplicates").click()
    expect(page.get_by_role("link", name="Search with near-duplicate 2")).to_be_visible()
    expect(page.locator("#hits .tag").first).to_have_text(re.compile("cats|2026"))
    expect(page.locator("#report")).to_contain_text("Every image that fits was considered")
    page.reload()
    expect(page.locator("#in-use")).to_have_text("3 in use")
    page.locator("#more-options summary").click()
    expect(page.locator("#since")).to_have_value("2020-01-31")
    expect(page.get_by_label("cats", exact=True)).to_be_checked()
    page.fill("#until", "2020-02-01")
    page.set_input_files("#file", files[0])
    expect(page.locator("#problem")).to_contain_text("Nothing was found that fits the options.")
    page.locator("#more-options summary").click()
    page.fill("#max-distance", "-1")
    page.get_by_role("button", name="Search again").click()
    expect(page.locator("#problem")).to_contain_text("“Distance at most” takes a number from 0")


def test_a_picture_can_be_pasted(page: Page, site: Site, files: list[Path]) -> None:
    fill(site, files)
    page.goto("/")
    page.evaluate(
        """async (bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }""",
        list(files[3].read_bytes()),
    )
    expect(page.locator("#hits .card").first).to_contain_text("picture-3.png")


def test_a_pasted_address_is_searched_with(page: Page) -> None:
    paste = """(node, text) => {
      const data = new DataTransfer();
      data.setData("text/plain", text);
      node.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
    }"""
    page.goto("/")
    page.locator("#k").evaluate(paste, "http://127.0.0.1:9/field.png")
    page.locator("body").evaluate(paste, "no address")
    expect(page.locator("#answer")).to_be_hidden()
    page.locator("body").evaluate(paste, "http://127.0.0.1:9/a.png")
    expect(page.locator("#query")).to_contain_text("http://127.0.0.1:9/a.png")
    expect(page.locator("#state .badge")).to_have_text("failed")


def test_a_stored_image_is_called_by_its_name(page: Page, site: Site, files: list[Path]) -> None:
    fill(site, files)
    image = site.client.recent().images[0]
    page.goto(f"/?image={image.id}")
    name = page.locator("#query .path")
    expect(name).to_have_text(image.sources[0].removeprefix("upload:"))
    expect(name).to_have_attribute("title", f"Stored image {image.id}")


def test_what_fails_is_shown_with_its_remedy(page: Page, tmp_path: Path) -> None:
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(b"%PDF-1.7 no picture")
    page.goto("/")
    page.set_input_files("#file", paper)
    expect(page.locator("#state .badge")).to_have_text("failed")
    expect(page.locator("#problem p")).to_have_count(2)


def test_the_first_visit_says_how_to_begin(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#empty")).to_contain_text("lookalike ingest FOLDER")
    page.goto("/collection")
    expect(page.locator("#empty")).to_be_visible()


def test_a_job_is_started_watched_and_finished(
    page: Page, files: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.goto("/jobs")
    page.set_input_files("#files", [*files, broken])
    expect(page.locator("#chosen")).to_contain_text("7 files")
    page.fill("#label", "my pictures")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(r"/jobs/.+"))
    expect(page.locator("h1")).to_have_text("my pictures")
    expect(page.locator("#state")).to_have_text("done")
    expect(page.locator("#percent")).to_have_text("100 %")
    page.get_by_role("button", name="rejected", exact=True).click()
    rows = page.locator("#items li")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("upload:broken.png")
    expect(rows.first.locator(".reason code")).not_to_be_empty()
    page.get_by_role("link", name="All jobs").click()
    expect(page.locator("a.job")).to_contain_text("my pictures")
    expect(page.locator("a.job")).to_contain_text("1 problem")


def test_files_of_the_server_are_not_called_a_folder(
    page: Page, site: Site, files: list[Path]
) -> None:
    job = site.client.ingest_files(files[:1])
    page.goto("/jobs")
    expect(page.locator("a.job .what")).to_contain_text("files on the server")
    page.goto(f"/jobs/{job.id}")
    expect(page.locator("#facts")).to_contain_text("Files on the server")


def test_every_chosen_file_gets_an_outcome(page: Page, tmp_path: Path) -> None:
    for name, content in (("good.png", picture(1)), ("empty.png", b""), (".hidden", b"notes")):
        (tmp_path / name).write_bytes(content)
    page.goto("/jobs")
    page.set_input_files("#files", [*tmp_path.glob("*.png"), tmp_path / ".hidden"])
    expect(page.locator("#chosen")).to_contain_text("3 files")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#state")).to_have_text("done")
    expect(page.locator("#items li")).to_have_count(3)
    page.select_option("#filter", "rejected")
    expect(page.locator("#items .reason")).to_have_count(2)


def test_fields_are_checked_in_words_of_the_page(page: Page) -> None:
    problem = page.locator("#problem")
    page.goto("/")
    page.fill("#k", "")
    page.fill("#url", "http://127.0.0.1:9/a.png")
    page.keyboard.press("Enter")
    expect(problem).to_contain_text("“Hits” takes a whole number from 1 to")
    expect(page.locator("#k")).to_be_focused()

    page.goto("/jobs")
    start = page.get_by_role("button", name="Start")
    page.get_by_text("Crawl", exact=True).click()
    start.click()
    expect(problem).to_contain_text("“Page to start from” is empty.")
    page.fill("#seed", "http://127.0.0.1:9/")
    page.fill("#max-pages", "0")
    start.click()
    expect(problem).to_contain_text("“Pages at most” takes a whole number from 1 to")
    page.get_by_text("Server folder", exact=True).click()
    expect(page.get_by_text("LOOKALIKE_FOLDER_ROOTS")).to_be_visible()
    expect(start).to_be_hidden()


def test_an_image_is_looked_at_and_deleted(page: Page, site: Site, files: list[Path]) -> None:
    fill(site, files)
    page.goto("/collection")
    cards = page.locator("#images .card")
    expect(cards).to_have_count(len(files))
    page.get_by_role("button", name="Details of picture-4.png").click()
    expect(page.locator("#details-facts")).to_contain_text(re.compile("160 . 160 pixels"))
    expect(page.get_by_role("link", name="Open the original of picture-4.png")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Yes, delete").click()
    expect(cards).to_have_count(len(files) - 1)
    expect(page.locator("#count")).to_have_text("5 images")
    assert site.client.count() == len(files) - 1
    expect(page.get_by_role("button", name="Details of picture-3.png")).to_be_focused()


def test_the_last_image_leaves_the_focus_on_the_heading(
    page: Page, site: Site, files: list[Path]
) -> None:
    fill(site, files[:1])
    page.goto("/collection")
    page.get_by_role("button", name="Details of").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Yes, delete").click()
    expect(page.get_by_role("heading", name="Collection")).to_be_focused()


def test_the_keyboard_is_enough(page: Page, site: Site, files: list[Path]) -> None:
    fill(site, files)
    page.goto("/collection")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.get_by_role("button", name="Details of picture-5.png").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#details")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone(
    browser: Browser, site: Site, files: list[Path], scheme: str
) -> None:
    fill(site, files)
    context = browser.new_context(
        base_url=site.url,
        viewport={"width": 375, "height": 700},
        color_scheme=scheme,  # type: ignore[arg-type]
        has_touch=True,
    )
    page = context.new_page()
    for path in ("/", "/jobs", f"/jobs/{site.client.jobs()[0].id}", "/collection", "/api/v1/docs"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert not wide_open(page), path
    page.goto(f"/?image={site.client.recent().images[0].id}")
    expect(page.locator("#hits .card")).to_have_count(len(files))
    assert not wide_open(page)
    context.close()
