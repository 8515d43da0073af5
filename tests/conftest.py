"""Fixtures for every room, and the order of the tests: quick ones first."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.leaks import no_leaks
from tests.services import (
    BROWSER_FIXTURES,
    SERVICE_FIXTURES,
    chromium_path,
    postgres,
    pycaffe,
    rabbitmq,
)

__all__ = ["chromium_path", "leave_nothing_behind", "postgres", "pycaffe", "rabbitmq"]


def pytest_configure() -> None:
    """Let processes of tests be interrupted, also where a shell runs this in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the services they ask for; run plain ones, then services, then browser."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & SERVICE_FIXTURES:
            item.add_marker("services")
        if fixtures & BROWSER_FIXTURES:
            item.add_marker("browser")
    items.sort(key=_group)


def _group(item: pytest.Item) -> int:
    if item.get_closest_marker("browser"):
        return 2
    return 1 if item.get_closest_marker("services") else 0


@pytest.fixture(autouse=True)
def leave_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves a thread, a child process or an open file behind."""
    with no_leaks():
        yield
