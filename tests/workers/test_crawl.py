"""Finding a job's images, step by step: a real ledger, a real site, and a queue that records."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.pictures import folder_of, jpeg
from tests.workers.sites import Site, site
from workers import crawl
from workers.crawl import step, walk
from workers.ledger import NewJob, Outcome
from workers.records import Item, ItemState, Job, JobKind, JobState
from workers.resources import Resources
from workers.settings import Settings


class Queue:
    """Stands for the dispatcher, and only notes what was sent."""

    def __init__(self) -> None:
        self.listings: list[str] = []
        self.pumped: list[str] = []

    def listing(self, job_id: str) -> None:
        self.listings.append(job_id)

    def pump(self, job_id: str) -> None:
        self.pumped.append(job_id)


class Crawl:
    """A crawl or folder job, and the messages that drive it."""

    def __init__(self, resources: Resources, job_id: str) -> None:
        self.resources = resources
        self.ledger = resources.ledger
        self.queue = Queue()
        self.job_id = job_id

    def step(self) -> None:
        step(self.resources, self.queue, self.job_id)  # type: ignore[arg-type]

    def run(self, steps: int = 100) -> Crawl:
        """Work off messages until none is left."""
        self.queue.listings = [self.job_id]
        while self.queue.listings and steps:
            self.queue.listings.pop()
            self.step()
            steps -= 1
        assert steps
        return self

    @property
    def job(self) -> Job:
        job = self.ledger.jobs.get(self.job_id)
        assert job is not None
        return job

    @property
    def items(self) -> list[Item]:
        return self.ledger.items.page(self.job_id, state=None, limit=10_000, after=0)

    @property
    def found(self) -> list[str]:
        """Last parts of the addresses found."""
        return [item.source.rpartition("/")[2] for item in self.items]

    @property
    def problem(self) -> str:
        error = self.job.error
        assert error is not None
        assert error.remedy
        return error.code


@pytest.fixture
def resources(tmp_path: Path) -> Iterator[Resources]:
    settings = Settings(data_dir=tmp_path, allow_private_addresses=True, crawl_delay_s=0.0)
    with Resources(settings) as opened:
        yield opened


def a_crawl(resources: Resources, seed: str, *, depth: int = 9, pages: int = 50) -> Crawl:
    params = {"seed": seed, "max_depth": depth, "max_pages": pages}
    job_id = resources.ledger.jobs.create(NewJob(JobKind.CRAWL, seed, params=params))
    resources.ledger.pages.add(job_id, [seed], depth=0, max_pages=1)
    return Crawl(resources, job_id)


def a_folder(resources: Resources, path: Path) -> Crawl:
    new = NewJob(JobKind.FOLDER, str(path), params={"path": str(path)})
    return Crawl(resources, resources.ledger.jobs.create(new))


def linked(*names: str) -> bytes:
    return "".join(f'<a href="{name}">{name}</a>' for name in names).encode()


# -- crawls ----------------------------------------------------------------------------------


def test_a_crawl_visits_the_pages_of_its_site_and_notes_their_images(
    resources: Resources, web_site: Site
) -> None:
    seed = web_site.add("/", linked("/a", "/b", "photo.jpg") + b'<img src="/logo.png">')
    web_site.add("/a", linked("/", "/b") + b'<img src="/a.jpg"><img src="/logo.png">')
    web_site.add("/b", b'<img srcset="/small.jpg 1x, /large.jpg 2x">')
    crawled = a_crawl(resources, seed).run()
    assert crawled.found == ["logo.png", "photo.jpg", "a.jpg", "large.jpg"]
    assert crawled.job.pages == {"visited": 3}
    assert crawled.job.listing_done
    assert web_site.visits == ["/robots.txt", "/", "/a", "/b"]
    assert set(crawled.queue.pumped) == {crawled.job_id}


def test_one_message_visits_one_page(resources: Resources, web_site: Site) -> None:
    crawled = a_crawl(resources, web_site.add("/", linked("/a")))
    crawled.step()
    assert web_site.visits == ["/robots.txt", "/"]
    assert crawled.queue.listings == [crawled.job_id]
    assert not crawled.job.listing_done


def test_a_crawl_goes_no_deeper_than_it_may(resources: Resources, web_site: Site) -> None:
    seed = web_site.add("/0", linked("/1"))
    for depth in (1, 2, 3):
        web_site.add(f"/{depth}", linked(f"/{depth + 1}") + f'<img src="{depth}.jpg">'.encode())
    crawled = a_crawl(resources, seed, depth=2).run()
    assert crawled.found == ["1.jpg", "2.jpg"]
    assert a_crawl(resources, seed, depth=0).run().job.pages == {"visited": 1}


def test_a_crawl_visits_no_more_pages_than_it_may(resources: Resources, web_site: Site) -> None:
    seed = web_site.add("/", linked(*(f"/{number}" for number in range(20))))
    for number in range(20):
        web_site.add(f"/{number}", b"")
    assert a_crawl(resources, seed, pages=7).run().job.pages == {"visited": 7}


def test_a_crawl_stays_on_its_site_but_takes_images_from_others(
    resources: Resources, web_site: Site
) -> None:
    with site() as other:
        page, image = other.add("/page", b""), other.add("/far.jpg", jpeg(1))
        seed = web_site.add("/", linked(page) + f'<img src="{image}">'.encode())
        crawled = a_crawl(resources, seed).run()
        assert crawled.found == ["far.jpg"]
        assert crawled.job.pages == {"visited": 1}
        assert other.visits == ["/robots.txt"]


def test_a_host_is_the_same_however_it_is_written(resources: Resources) -> None:
    same = crawl._same_site
    assert same("http://Host.example/a", "https://host.example:443/b")
    assert same("http://host.example:80/a", "http://host.example/")
    assert not same("http://host.example:8080/a", "http://host.example/")
    assert not same("http://host.example/", "http://www.host.example/")
    assert not same("http://host.example:port/", "http://host.example/")


def test_robots_rules_close_pages_and_images(resources: Resources, web_site: Site) -> None:
    web_site.add("/robots.txt", b"User-agent: *\nDisallow: /no", "text/plain")
    images = b'<img src="/no/a.jpg"><img src="/yes.jpg">'
    web_site.add("/no/page", b'<img src="/hidden.jpg">')
    crawled = a_crawl(resources, web_site.add("/", linked("/no/page") + images)).run()
    assert crawled.found == ["yes.jpg"]
    assert crawled.job.pages == {"visited": 1, "failed": 1}
    assert web_site.visits == ["/robots.txt", "/"]
    assert crawled.job.error is None


def test_a_redirect_into_what_is_closed_to_robots_is_not_used(
    resources: Resources, web_site: Site
) -> None:
    web_site.add("/robots.txt", b"User-agent: *\nDisallow: /no", "text/plain")
    web_site.add("/no", b'<img src="/hidden.jpg">')
    moved = redirecting(web_site, "/", "/no")
    crawled = a_crawl(resources, moved).run()
    assert (crawled.found, crawled.problem) == ([], "robots")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((404, "text/html", b""), "http_status"),
        ((500, "text/html", b""), "http_status"),
        ((200, "application/pdf", b"%PDF"), "not_a_page"),
    ],
)
def test_a_seed_that_cannot_be_read_fails_the_job(
    resources: Resources, web_site: Site, answer: tuple[int, str, bytes], code: str
) -> None:
    web_site.answers["/"] = answer
    crawled = a_crawl(resources, web_site.url + "/").run()
    assert crawled.job.state is JobState.FAILED
    assert crawled.problem == code


def test_a_seed_whose_site_is_closed_to_robots_fails_the_job(
    resources: Resources, web_site: Site
) -> None:
    web_site.add("/robots.txt", b"User-agent: *\nDisallow: /", "text/plain")
    crawled = a_crawl(resources, web_site.add("/", b"")).run()
    assert crawled.problem == "robots"
    assert web_site.visits == ["/robots.txt"]


def test_a_seed_that_is_an_image_is_taken_in(resources: Resources, web_site: Site) -> None:
    crawled = a_crawl(resources, web_site.add("/a", jpeg(1), "image/jpeg")).run()
    assert crawled.found == ["a"]


def redirecting(web_site: Site, path: str, target: str) -> str:
    """Put a page that a browser is sent away from, and return its address."""
    web_site.redirects[path] = target
    return web_site.url + path


def test_a_seed_that_leads_to_another_site_says_so(resources: Resources, web_site: Site) -> None:
    with site() as other:
        seed = redirecting(web_site, "/", other.add("/there", b'<img src="a.jpg">'))
        crawled = a_crawl(resources, seed).run()
        assert (crawled.found, crawled.problem) == ([], "other_site")
        error = crawled.job.error
        assert error is not None
        assert other.url in error.message


def test_a_redirect_on_the_same_site_moves_the_base_of_links(
    resources: Resources, web_site: Site
) -> None:
    web_site.add("/dir/", b'<img src="a.jpg">')
    crawled = a_crawl(resources, redirecting(web_site, "/old", "/dir/")).run()
    assert [item.source for item in crawled.items] == [web_site.url + "/dir/a.jpg"]


def test_a_bad_page_in_the_middle_does_not_stop_a_crawl(
    resources: Resources, web_site: Site
) -> None:
    seed = web_site.add("/", linked("/gone", "/http://[", "//[", "/good"))
    web_site.add("/good", b'<base href="http://["><img src="/a.jpg">')
    crawled = a_crawl(resources, seed).run()
    assert crawled.found == ["a.jpg"]
    assert crawled.job.error is None


def test_a_crawl_goes_on_after_its_worker_died(resources: Resources, web_site: Site) -> None:
    seed = web_site.add("/", linked("/a"))
    web_site.add("/a", b'<img src="a.jpg">')
    crawled = a_crawl(resources, seed)
    assert crawled.ledger.pages.next(crawled.job_id) is not None  # and then it died
    assert crawled.run().found == ["a.jpg"]


def test_a_page_that_takes_workers_down_is_given_up(resources: Resources, web_site: Site) -> None:
    crawled = a_crawl(resources, web_site.add("/", linked("/a")))
    for _ in range(resources.settings.max_attempts):
        crawled.ledger.pages.next(crawled.job_id)
    crawled.run()
    assert crawled.problem == "worker_died"
    assert web_site.visits == []


def test_a_message_that_comes_twice_finds_nothing_twice(
    resources: Resources, web_site: Site
) -> None:
    seed = web_site.add("/", b'<img src="a.jpg">')
    crawled = a_crawl(resources, seed).run()
    for _ in range(3):
        crawled.step()
    assert crawled.found == ["a.jpg"]
    assert crawled.queue.listings == []


def test_a_cancelled_crawl_visits_nothing_more(resources: Resources, web_site: Site) -> None:
    crawled = a_crawl(resources, web_site.add("/", linked("/a") + b'<img src="a.jpg">'))
    crawled.step()
    crawled.ledger.jobs.cancel(crawled.job_id)
    crawled.run()
    assert web_site.visits == ["/robots.txt", "/"]
    assert crawled.job.state is JobState.CANCELLED
    assert crawled.job.counts.cancelled == 1


def test_a_private_site_is_not_crawled_by_default(tmp_path: Path, web_site: Site) -> None:
    with Resources(Settings(data_dir=tmp_path)) as closed:
        crawled = a_crawl(closed, web_site.add("/", b"")).run()
        assert crawled.problem == "private_address"
    assert web_site.visits == []


# -- folders ---------------------------------------------------------------------------------


def test_a_folder_is_walked_by_name_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "sub/c.webp", "sub/deep/d.gif", "note.txt", ".hidden.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "e.jpg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "b.jpg")
    found = [str(path.relative_to(tmp_path)) for path in walk(tmp_path)]
    assert found == ["a.PNG", "b.jpg", "link.jpg", "sub/c.webp", "sub/deep/d.gif"]


def test_a_folder_that_cannot_be_read_shows_up_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refuse(path: str | Path) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "closed":  # root may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").touch()
    monkeypatch.setattr(os, "scandir", refuse)
    assert list(walk(tmp_path)) == [tmp_path / "a.jpg", tmp_path / "closed"]


def test_a_folder_job_lists_everything_and_comes_to_its_end(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crawl, "_LISTING_BATCH", 4)
    listed = a_folder(resources, folder_of(tmp_path / "photos", range(10))).run()
    assert listed.job.counts.submitted == 10
    assert listed.job.listing_done
    assert listed.job.state is JobState.QUEUED
    assert listed.queue.pumped == [listed.job_id] * 3  # work begins before the listing ends


def test_a_folder_listing_that_broke_off_is_resumed_without_doubles(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = folder_of(tmp_path / "photos", range(10))
    monkeypatch.setattr(crawl, "_LISTING_BATCH", 4)
    listed = a_folder(resources, photos)
    with monkeypatch.context() as broken:
        broken.setattr(listed.queue, "pump", broken_off)
        with pytest.raises(ConnectionError):
            listed.step()
    assert listed.job.counts.submitted == 4
    assert listed.run().job.counts.submitted == 10


def broken_off(_job_id: str) -> None:
    raise ConnectionError


def test_a_cancelled_folder_is_listed_no_further(
    resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crawl, "_LISTING_BATCH", 4)
    listed = a_folder(resources, folder_of(tmp_path / "photos", range(10)))
    monkeypatch.setattr(listed.queue, "pump", listed.ledger.jobs.cancel)
    listed.run()
    assert listed.job.state is JobState.CANCELLED
    assert listed.job.counts.cancelled == listed.job.counts.submitted == 4


def test_a_folder_that_is_gone_fails_the_job(resources: Resources, tmp_path: Path) -> None:
    listed = a_folder(resources, tmp_path / "gone").run()
    assert listed.job.state is JobState.FAILED
    assert listed.problem == "no_such_folder"


def test_a_folder_without_images_fails_the_job(resources: Resources, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "note.txt").touch()
    listed = a_folder(resources, tmp_path / "photos").run()
    assert listed.problem == "no_images"


def test_names_that_are_no_text_are_listed(resources: Resources, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Path(os.fsdecode(os.fsencode(photos) + b"/\xff\xfe.jpg")).touch()
    (photos / "two\nlines.jpg").touch()
    listed = a_folder(resources, photos).run()
    assert sorted(listed.found) == ["two\nlines.jpg", "\ufffd\ufffd.jpg"]


def test_a_job_that_is_over_is_not_listed_again(resources: Resources, tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", range(1))
    listed = a_folder(resources, photos).run()
    (ids,) = listed.ledger.items.dispatch(listed.job_id, batch=9, window=1)
    listed.ledger.items.finish([Outcome(item, ItemState.INDEXED) for item in ids])
    assert listed.ledger.jobs.settle(listed.job_id)
    folder_of(photos, range(5))
    assert listed.run().job.counts.submitted == 1


def test_a_message_of_an_unknown_job_does_nothing(resources: Resources) -> None:
    unknown = Crawl(resources, "nonsense")
    unknown.step()
    assert unknown.queue.listings == []
