"""A collection of photos behind a running site, with broker and workers, searched over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench.http import Api
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

_JOB_TIMEOUT_S = 1_800.0
_LONG_POLL_S = 30


@dataclass(frozen=True)
class Served:
    """What is up while a benchmark runs.

    Attributes:
        photos: The files that were ingested.
        indexed: How many images they are.
        logs: Where the processes say what goes wrong.
    """

    api: Api
    photos: list[Path]
    indexed: int
    logs: Path


@contextmanager
def served(images: Path | None, wanted: int, console: Console) -> Iterator[Served]:
    """Start RabbitMQ, workers and site, and ingest photos over HTTP and the queue.

    Args:
        images: Folder of photographs, or ``None`` for variants of the demo ones.
        wanted: How many variants to make then.
        console: Told what is going on.
    """
    with scratch() as folder:
        photos = _photos(images, wanted, folder, console)
        root = images.absolute() if images else folder / "photos"
        logs = folder / "logs"
        logs.mkdir()
        with broker(folder / "broker", kind="rabbitmq") as broker_url:
            environ = environment(folder / "data", broker_url, roots=[root])
            with (
                all_workers(environ=environ, logs=logs) as workers,
                site(environ=environ, logs=logs) as address,
                Api(address) as api,
            ):
                console.note(f"Ingesting {len(photos)} photos at http://{address}/.")
                job = _ingest(api, root, workers, logs)
                yield Served(api, photos, job["counts"]["indexed"], logs)


def post_search(api: Api, content: bytes, *, k: int, effort: int) -> dict[str, Any]:
    """Post an image file and return the search as it stands then."""
    return api.post_file("/searches", "query.jpg", content, {"k": k, "effort": effort})


def await_search(api: Api, search: dict[str, Any]) -> dict[str, Any]:
    """Wait for a search and return it.

    Raises:
        OpsError: It did not end well.
    """
    while search["state"] in ("queued", "running"):
        search = api.get(f"/searches/{search['ticket']}?wait={_LONG_POLL_S}")
    if search["state"] != "done":
        raise OpsError(f"A search ended {search['state']}: {search['error']}")
    return search


def _photos(images: Path | None, wanted: int, folder: Path, console: Console) -> list[Path]:
    if images is not None:
        return photos_in(images)
    console.note(f"Making {wanted} different photos of the demo ones; --images takes others.")
    return write_variants(folder / "photos", wanted=wanted)


def _ingest(api: Api, folder: Path, workers: Daemon, logs: Path) -> dict[str, Any]:
    job = api.post("/jobs", {"kind": "folder", "path": str(folder)})
    deadline = time.monotonic() + _JOB_TIMEOUT_S
    while job["state"] in ("queued", "running") and time.monotonic() < deadline:
        insist_alive([workers], logs)
        job = api.get(f"/jobs/{job['id']}?wait={_LONG_POLL_S}")
    if job["state"] != "done":
        raise unfinished(f"Ingesting {folder} ended {job['state']} with {job['counts']}", logs)
    return job
