"""A served site on real workers, and a real Chromium to look at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from webui.app import create_app
from webui.server import make_server
from workers.client import Client
from workers.settings import Settings

PATIENCE_MS = 30_000
ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Site:
    """A site that is being served."""

    url: str
    client: Client


@pytest.fixture
def site(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A served site on an empty collection, with embedded workers."""
    settings = Settings(
        data_dir=tmp_path / "data",
        cache_dir=tmp_path_factory.getbasetemp() / "browser-cache",
        decoders=1,
        engine_threads=1,
    )
    with Client.open(settings, trusted=True) as client:  # as the command line would be
        server = make_server(create_app(client, settings), host="127.0.0.1", port=0)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield Site(server.url, client)
        finally:
            server.stop()
            thread.join()


@pytest.fixture
def browser(chromium_path: str) -> Iterator[Browser]:
    """A Chromium that talks to nobody but the site."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A page that fails the test if a script fails or a policy is broken."""
    context = browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    assert not faults, faults
