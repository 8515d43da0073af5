"""What a user waits for: from posting a picture to the result, over HTTP and the queue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from ops.bench.figures import spread, spreads
from ops.bench.http import Api
from ops.bench.output import put
from ops.bench.photos import photos_in, write_variants
from ops.bench.stack import (
    all_workers,
    broker,
    environment,
    insist_alive,
    scratch,
    site,
    unfinished,
)
from ops.cli.console import Console
from ops.errors import OpsError
from ops.services import Daemon
from workers.decode import image_id_of

_JOB_TIMEOUT_S = 1_800.0
_LONG_POLL_S = 30


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        images: Folder of photographs, or ``None`` for variants of the demo ones.
        photos: How many variants to make then.
        queries: Stored photographs to search with, one after another.
        warm_up: Searches before them that do not count.
        k: Hits to ask for.
        effort: Time against recall, 1 to 10.
    """

    images: Path | None
    photos: int
    queries: int
    warm_up: int
    k: int
    effort: int


@dataclass(frozen=True)
class _Sample:
    """One search, in milliseconds.

    Attributes:
        total_ms: From the post to the result in hand.
        stages_ms: As the report has them, and what HTTP adds.
        self_first: Whether the photograph found itself first.
    """

    total_ms: float
    stages_ms: dict[str, float]
    self_first: bool


def bench_e2e(plan: Plan, console: Console) -> None:
    """Start everything, ingest, search, and put out one object."""
    with scratch() as folder:
        photos = _photos(plan, folder, console)
        logs = folder / "logs"
        logs.mkdir()
        with broker(folder / "broker", kind="rabbitmq") as broker_url:
            root = plan.images.absolute() if plan.images else folder / "photos"
            environ = environment(folder / "data", broker_url, roots=[root])
            with (
                all_workers(environ=environ, logs=logs) as workers,
                site(environ=environ, logs=logs) as address,
                Api(address) as api,
            ):
                console.note(f"Ingesting {len(photos)} photos at http://{address}/.")
                job = _ingest(api, root, workers, logs)
                console.note(f"Searching {plan.warm_up} times to warm up, then {plan.queries}.")
                samples = _search_all(api, photos, plan, logs)
    put(console, "e2e", _figures(plan, job, samples))


def _photos(plan: Plan, folder: Path, console: Console) -> list[Path]:
    if plan.images is not None:
        return photos_in(plan.images)
    console.note(f"Making {plan.photos} different photos of the demo ones; --images takes others.")
    return write_variants(folder / "photos", wanted=plan.photos)


def _ingest(api: Api, folder: Path, workers: Daemon, logs: Path) -> dict[str, Any]:
    job = api.post("/jobs", {"kind": "folder", "path": str(folder)})
    deadline = time.monotonic() + _JOB_TIMEOUT_S
    while job["state"] in ("queued", "running") and time.monotonic() < deadline:
        insist_alive([workers], logs)
        job = api.get(f"/jobs/{job['id']}?wait={_LONG_POLL_S}")
    if job["state"] != "done":
        raise unfinished(f"Ingesting {folder} ended {job['state']} with {job['counts']}", logs)
    return job


def _search_all(api: Api, photos: Sequence[Path], plan: Plan, logs: Path) -> list[_Sample]:
    # Spread over the collection, so that a few queries are as mixed as many.
    step = max(1, len(photos) // plan.queries)
    wanted = islice(cycle(photos[::step]), plan.warm_up + plan.queries)
    try:
        return [_search(api, photo, plan) for photo in wanted][plan.warm_up :]
    except (OpsError, OSError) as error:
        raise unfinished(str(error), logs) from error


def _search(api: Api, photo: Path, plan: Plan) -> _Sample:
    content = photo.read_bytes()
    begin = time.perf_counter()
    fields = {"k": plan.k, "effort": plan.effort}
    search = api.post_file("/searches", "query.jpg", content, fields)
    posted = time.perf_counter()
    while search["state"] in ("queued", "running"):
        search = api.get(f"/searches/{search['ticket']}?wait={_LONG_POLL_S}")
    end = time.perf_counter()
    if search["state"] != "done":
        raise OpsError(f"A search ended {search['state']}: {search['error']}")
    total_ms = (end - begin) * 1000
    report = search["report"]["timings_ms"]
    http = {
        "post": (posted - begin) * 1000,
        "wait": (end - posted) * 1000,
        # What is no work of the search: HTTP, writing the result, and noticing it.
        "outside": total_ms - report["total"],
    }
    found_self = search["hits"][0]["id"] == image_id_of(content)
    return _Sample(total_ms, {**report, **http}, found_self)


def _figures(plan: Plan, job: dict[str, Any], samples: Sequence[_Sample]) -> dict[str, Any]:
    whole = spread([sample.total_ms for sample in samples], 50, 95, 99)
    return {
        **{f"{name}_ms": value for name, value in whole.items()},
        "queries": len(samples),
        "self_first": sum(sample.self_first for sample in samples),
        "images": job["counts"]["indexed"],
        "photos": str(plan.images or "variants of the demo photos"),
        "k": plan.k,
        "effort": plan.effort,
        "stages_ms": spreads([sample.stages_ms for sample in samples]),
    }
