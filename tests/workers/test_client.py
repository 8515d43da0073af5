"""What a user can do, on the embedded default and on RabbitMQ with PostgreSQL alike."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workers.conftest import PATIENCE_S, running_client, warm
from tests.workers.pictures import folder_of, jpeg, picture
from tests.workers.sites import Site
from workers.client import Client
from workers.errors import InvalidRequest, NotFound, Rejected
from workers.records import ItemState, Job, JobState, Search, SearchState
from workers.settings import Settings


@pytest.fixture(
    scope="module",
    params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.services)],
)
def client(
    request: pytest.FixtureRequest,
    base_settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    settings = replace(base_settings, data_dir=tmp_path_factory.mktemp(request.param))
    if request.param == "rabbitmq":
        broker, database = request.getfixturevalue("rabbitmq"), request.getfixturevalue("postgres")
        settings = replace(
            settings, broker_url=broker.url, ledger_url=database.new_database("client")
        )
    with running_client(settings) as running:
        warm(running)
        yield running


def finished(client: Client, job: Job) -> Job:
    done = client.wait_job(job.id, PATIENCE_S)
    assert not done.state.open
    assert done.counts.balanced
    assert not done.counts.pending
    return done


def answered(client: Client, search: Search) -> Search:
    done = client.wait_search(search.ticket, PATIENCE_S)
    assert not done.state.open
    return done


def ingested(client: Client, data: bytes, name: str = "a.jpg") -> str:
    job = finished(client, client.ingest_uploads([(name, io.BytesIO(data))]))
    item = client.items(job.id)[0]
    assert item.image_id is not None
    return item.image_id


def test_every_image_of_a_folder_finds_itself_first(client: Client, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", range(100, 120))
    job = finished(client, client.ingest_folder(folder))
    assert (job.state, job.counts.indexed) == (JobState.DONE, 20)
    for path in sorted(folder.iterdir()):
        search = client.submit_search(upload=(path.name, io.BytesIO(path.read_bytes())), k=3)
        done = answered(client, search)
        assert done.state is SearchState.DONE
        assert done.hits[0].sources == (str(path),)
        assert done.hits[0].distance == pytest.approx(0, abs=1e-3)
        assert [hit.rank for hit in done.hits] == [1, 2, 3]


def test_a_search_reports_how_it_was_answered(client: Client) -> None:
    image_id = ingested(client, jpeg(1))
    report = answered(client, client.submit_search(image_id=image_id, effort=10)).report
    assert report is not None
    assert report["complete"]
    assert report["groups_asked"] == report["groups_answered"] == client.settings.probe_groups
    assert report["radius"] == 128
    assert report["reranked"] == client.count()
    assert set(report["timings_ms"]) >= {"queued", "fan_out", "total"}


def test_the_same_bytes_twice_are_one_image_with_two_sources(
    client: Client, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "twins", range(200, 201))
    shutil.copy(folder / "0200.jpg", folder / "copy.jpg")
    job = finished(client, client.ingest_folder(folder))
    assert (job.counts.indexed, job.counts.duplicate) == (1, 1)
    first, second = client.items(job.id)
    assert first.image_id == second.image_id
    assert first.image_id is not None
    assert set(client.image(first.image_id).sources) == {first.source, second.source}


def test_bad_files_are_rejected_by_name_and_the_rest_is_indexed(
    client: Client, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "mixed", range(300, 303))
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    (folder / "text.png").write_text("this is not a picture")
    (folder / "cut.jpg").write_bytes(jpeg(303)[:500])
    (folder / "wrong-name.jpg").write_bytes(_png(304))
    job = finished(client, client.ingest_folder(folder))
    assert (job.counts.indexed, job.counts.rejected) == (4, 4)
    problems = {
        Path(item.source).name: item.problem
        for item in client.items(job.id, state=ItemState.REJECTED)
    }
    assert {name: problem.code for name, problem in problems.items() if problem} == {
        "empty.jpg": "empty",
        "page.jpg": "html_not_image",
        "text.png": "not_an_image",
        "cut.jpg": "truncated",
    }
    assert all(problem and problem.remedy for problem in problems.values())


def _png(seed: int) -> bytes:
    out = io.BytesIO()
    picture(seed).save(out, "PNG")
    return out.getvalue()


def test_an_empty_folder_fails_its_job_with_a_reason(client: Client, tmp_path: Path) -> None:
    job = finished(client, client.ingest_folder(tmp_path))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "no_images"


def test_a_missing_folder_is_refused_at_once(client: Client, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="no folder"):
        client.ingest_folder(tmp_path / "nowhere")


def test_urls_are_ingested_and_dead_ones_fail_with_a_reason(
    client: Client, web_site: Site
) -> None:
    good = web_site.add("/good.jpg", jpeg(400), "image/jpeg")
    page = web_site.add("/page.html", b"<html></html>")
    dead = f"{web_site.url}/dead.jpg"
    job = finished(client, client.ingest_urls([good, page, dead, "ftp://x/y", good]))
    states = {item.source: (item.state, item.problem) for item in client.items(job.id)}
    assert states[good] == (ItemState.INDEXED, None)
    codes = {source: problem.code for source, (_, problem) in states.items() if problem}
    assert codes == {page: "html_not_image", dead: "http_status", "ftp://x/y": "bad_url"}


def test_a_url_can_be_searched_for(client: Client, web_site: Site) -> None:
    image_id = ingested(client, jpeg(401))
    url = web_site.add("/query.jpg", jpeg(401), "image/jpeg")
    done = answered(client, client.submit_search(url=url))
    assert done.hits[0].id == image_id
    assert client.query_thumbnail(done.ticket).read_bytes().startswith(b"\xff\xd8")


def test_a_query_that_is_no_image_fails_with_a_reason(client: Client) -> None:
    done = answered(client, client.submit_search(upload=("x.jpg", io.BytesIO(b"nonsense"))))
    assert done.state is SearchState.FAILED
    assert done.error is not None
    assert done.error.code == "not_an_image"


def test_an_empty_query_is_refused_at_once(client: Client) -> None:
    with pytest.raises(Rejected, match="0 bytes"):
        client.submit_search(upload=("x.jpg", io.BytesIO()))


@pytest.mark.parametrize("k", [0, -1, 10**9])
def test_an_impossible_k_is_refused(client: Client, k: int) -> None:
    with pytest.raises(InvalidRequest, match="k is"):
        client.submit_search(url="http://example.org/a.jpg", k=k)


@pytest.mark.parametrize("effort", [0, 11])
def test_an_impossible_effort_is_refused(client: Client, effort: int) -> None:
    with pytest.raises(InvalidRequest, match="effort is"):
        client.submit_search(url="http://example.org/a.jpg", effort=effort)


def test_a_search_takes_exactly_one_image(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="exactly one"):
        client.submit_search()


def test_unknown_things_are_said_to_be_unknown(client: Client) -> None:
    assert client.search("never-given-out").state is SearchState.UNKNOWN
    with pytest.raises(NotFound):
        client.submit_search(image_id="0" * 32)
    with pytest.raises(NotFound):
        client.image("../../etc/passwd")
    with pytest.raises(NotFound):
        client.job("nothing")


def test_a_deleted_image_is_not_found_by_the_next_search(client: Client) -> None:
    image_id = ingested(client, jpeg(500))
    before = answered(client, client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(500)))))
    assert before.hits[0].id == image_id
    thumbnail = client.thumbnail(image_id)
    client.delete_image(image_id)
    after = answered(client, client.submit_search(upload=("q.jpg", io.BytesIO(jpeg(500)))))
    assert image_id not in {hit.id for hit in after.hits}
    assert not thumbnail.exists()
    with pytest.raises(NotFound):
        client.delete_image(image_id)


def test_an_uploads_original_is_kept_and_given_back(client: Client) -> None:
    image_id = ingested(client, jpeg(501))
    path, media_type = client.original(image_id)
    assert path.read_bytes() == jpeg(501)
    assert media_type == "image/jpeg"


def test_a_file_that_was_replaced_is_not_given_out(client: Client, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "swap", range(502, 503))
    job = finished(client, client.ingest_folder(folder))
    image_id = client.items(job.id)[0].image_id
    assert image_id is not None
    assert client.original(image_id)[0] == folder / "0502.jpg"
    (folder / "0502.jpg").write_text("a secret that somebody linked here")
    with pytest.raises(NotFound):
        client.original(image_id)


def test_recent_images_come_in_pages_that_miss_nothing(client: Client, tmp_path: Path) -> None:
    finished(client, client.ingest_folder(folder_of(tmp_path / "many", range(600, 612))))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = client.recent(5, cursor)
        seen += [image.id for image in page.images]
        if (cursor := page.next) is None:
            break
    assert len(seen) == len(set(seen)) == client.count()


def test_a_crawl_follows_links_and_obeys_robots(client: Client, web_site: Site) -> None:
    web_site.add("/robots.txt", b"User-agent: *\nDisallow: /closed", "text/plain")
    web_site.add("/", b'<a href="/inner">in</a><a href="/closed">no</a><img src="/1.jpg">')
    web_site.add("/inner", b'<img src="2.jpg"><img src="/closed/3.jpg"><a href="/deep">x</a>')
    web_site.add("/deep", b'<img src="/4.jpg">')
    for number in (1, 2, 4):
        web_site.add(f"/{number}.jpg", jpeg(700 + number), "image/jpeg")
    job = finished(client, client.crawl(web_site.url + "/", max_depth=1))
    assert (job.state, job.counts.indexed) == (JobState.DONE, 2)
    assert not any(visit.startswith(("/closed", "/deep", "/4")) for visit in web_site.visits)


def test_a_crawl_from_a_dead_seed_fails_with_a_reason(client: Client, web_site: Site) -> None:
    job = finished(client, client.crawl(f"{web_site.url}/gone"))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "http_status"


def test_searches_do_not_wait_behind_a_bulk_job_and_it_can_be_cancelled(
    client: Client, web_site: Site
) -> None:
    release = threading.Event()

    def slow() -> tuple[int, str, bytes]:
        release.wait(PATIENCE_S)
        return 404, "text/plain", b""

    urls = [f"{web_site.url}/slow/{number}" for number in range(100)]
    web_site.answers.update({url.removeprefix(web_site.url): slow for url in urls})
    image_id = ingested(client, jpeg(800))
    job = client.ingest_urls(urls)
    try:
        done = answered(client, client.submit_search(image_id=image_id))
        assert done.state is SearchState.DONE
        assert ingested(client, jpeg(801))
        assert client.job(job.id).state.open
        counts = client.cancel_job(job.id).counts
        assert counts.balanced
        assert counts.cancelled > 0
    finally:
        release.set()
    ended = finished(client, job)
    assert ended.state is JobState.CANCELLED
    assert ended.counts.failed + ended.counts.cancelled == len(urls)


def test_a_cancelled_search_stays_cancelled(client: Client, web_site: Site) -> None:
    release = threading.Event()
    web_site.answers["/held.jpg"] = lambda: (release.wait(PATIENCE_S), (200, "image/jpeg", b""))[1]
    search = client.submit_search(url=f"{web_site.url}/held.jpg")
    try:
        assert client.cancel_search(search.ticket).state is SearchState.CANCELLED
    finally:
        release.set()
    assert answered(client, search).state is SearchState.CANCELLED
