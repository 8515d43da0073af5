"""What robots.txt says is obeyed, and sites are visited at their pace."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protego import Protego

from tests.workers.sites import Site
from workers import robots as robots_module
from workers.errors import Rejected, WorkerError
from workers.fetch import Fetcher
from workers.robots import Robots
from workers.settings import Settings

SETTINGS = Settings(allow_private_addresses=True, crawl_delay_s=0.0)


def robots(given: Settings = SETTINGS) -> Robots:
    return Robots(Fetcher(given), given)


def closed(site: Site, path: str, given: Settings = SETTINGS) -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        robots(given).check(site.url + path)
    assert caught.value.remedy
    return caught.value


def test_rules_for_us_and_for_all_are_obeyed(web_site: Site) -> None:
    rules = "User-agent: *\nDisallow: /private\nAllow: /private/open\n"
    web_site.add("/robots.txt", rules.encode(), "text/plain")
    asked = robots()
    for path in ("/", "/a.jpg", "/private/open/x"):
        asked.check(web_site.url + path)
    error = closed(web_site, "/private/x")
    assert isinstance(error, Rejected)
    assert error.code == "robots"
    assert "/private/x is closed to robots" in error.message


def test_a_rule_that_names_us_wins_over_the_one_for_all(web_site: Site) -> None:
    rules = "User-agent: *\nDisallow: /\n\nUser-agent: Lookalike\nDisallow: /no\n"
    web_site.add("/robots.txt", rules.encode(), "text/plain")
    robots().check(web_site.url + "/yes")
    assert closed(web_site, "/no").code == "robots"
    other = replace(SETTINGS, user_agent="otherbot/2.0")
    assert closed(web_site, "/yes", other).code == "robots"


@pytest.mark.parametrize("status", [404, 403, 410, 429])
def test_a_site_without_rules_is_open(web_site: Site, status: int) -> None:
    web_site.answers["/robots.txt"] = (status, "text/plain", b"")
    robots().check(web_site.url + "/a")


@pytest.mark.parametrize("status", [500, 503])
def test_a_site_that_cannot_say_is_closed(web_site: Site, status: int) -> None:
    web_site.answers["/robots.txt"] = (status, "text/plain", b"")
    error = closed(web_site, "/a")
    assert error.code == "robots"
    assert str(status) in error.message


def test_a_site_that_does_not_answer_is_closed() -> None:
    with pytest.raises(WorkerError) as caught:
        robots().check("http://127.0.0.1:1/a")
    assert caught.value.code == "unreachable"


def test_rules_are_asked_for_once(web_site: Site) -> None:
    web_site.add("/robots.txt", b"", "text/plain")
    asked = robots()
    for number in range(5):
        asked.check(f"{web_site.url}/{number}")
        asked.wait_turn(f"{web_site.url}/{number}")
    assert web_site.visits == ["/robots.txt"]


def test_a_failure_is_kept_for_a_while_and_then_asked_again(
    web_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may show a thousand images of a host that is down."""
    web_site.answers["/robots.txt"] = (500, "text/plain", b"")
    asked = robots()
    for _ in range(3):
        with pytest.raises(WorkerError):
            asked.check(web_site.url + "/a")
    assert web_site.visits == ["/robots.txt"]
    monkeypatch.setattr(robots_module, "_FAILURE_KEPT_S", -1.0)
    asked = robots()
    for _ in range(2):
        with pytest.raises(WorkerError):
            asked.check(web_site.url + "/a")
    assert len(web_site.visits) == 3


def test_of_rules_that_never_end_the_beginning_counts(web_site: Site) -> None:
    rules = b"User-agent: *\nDisallow: /no\n" + b"# padding\n" * 100_000
    web_site.add("/robots.txt", rules, "text/plain")
    assert closed(web_site, "/no").code == "robots"
    robots().check(web_site.url + "/yes")


@pytest.mark.parametrize("rules", [b"\xff\xfe\0nonsense", b"<html>not found</html>", b"\0" * 99])
def test_rules_that_are_none_forbid_nothing(web_site: Site, rules: bytes) -> None:
    web_site.add("/robots.txt", rules, "text/plain")
    robots().check(web_site.url + "/a")


@given(st.text(alphabet="User-agent:*Disallow/Crawl-delay\n .0123#\x00\ufeffé", max_size=200))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_rules_can_be_read(rules: str) -> None:
    parsed = Protego.parse(rules)
    parsed.can_fetch("http://host/a", "lookalike")
    parsed.crawl_delay("lookalike")


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []
        monkeypatch.setattr(robots_module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(robots_module.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("asked_for", "ours", "pause"),
    [(None, 2.0, 2.0), ("5", 2.0, 5.0), ("1", 2.0, 2.0), ("900", 2.0, 30.0), ("soon", 2.0, 2.0)],
)
def test_visits_keep_the_longer_of_both_pauses_within_reason(
    monkeypatch: pytest.MonkeyPatch,
    asked_for: str | None,
    ours: float,
    pause: float,
) -> None:
    rules = f"User-agent: *\nCrawl-delay: {asked_for}\n" if asked_for else ""
    paced = robots(replace(SETTINGS, crawl_delay_s=ours))
    monkeypatch.setattr(paced, "_fetch", lambda _url: rules)
    clock = Clock(monkeypatch)
    for _ in range(3):
        paced.wait_turn("http://host.example/a")
    assert clock.slept == [0.0, pause, pause]


def test_one_site_does_not_wait_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    paced = robots(replace(SETTINGS, crawl_delay_s=10.0))
    monkeypatch.setattr(paced, "_fetch", lambda _url: "")
    clock = Clock(monkeypatch)
    paced.wait_turn("http://one.example/a")
    paced.wait_turn("http://two.example/a")
    clock.now += 10.0
    paced.wait_turn("http://one.example/b")
    assert clock.slept == [0.0, 0.0, 0.0]
