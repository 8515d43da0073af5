"""Ingest against the bare loop: what queue, store, ledger and thumbnails cost.

Both take the same files, in turns, so that what else goes on on the machine hits both: a round of
ingest is held against the bare loops before and after it. It has a collection and workers of its
own; the clock runs from the first message to the last commit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ops.bench.bare import Arrangement, arrangements, run_bare
from ops.bench.figures import median, rounded, spreads
from ops.bench.machine import cores
from ops.bench.output import put
from ops.bench.photos import photos_in, write_variants
from ops.bench.stack import (
    broker,
    environment,
    insist_alive,
    noting_workers,
    scratch,
    stages_file,
    unfinished,
)
from ops.bench.stages import note_stages, per_image_ms, read_notes
from ops.cli.console import Console
from ops.services import Daemon
from workers.bundles import find_bundle
from workers.client import Client
from workers.lanes import lane_of
from workers.records import Job
from workers.settings import Settings

JOB_TIMEOUT_S = 1_800.0
_LOOK_S = 0.5
_LANES = (lane_of("bulk"), lane_of("crawl"))


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        images: Folder of photographs, or ``None`` for variants of the demo ones.
        photos: How many variants to make then.
        warm_up: Images that every process takes before the clock runs.
        rounds: Times that either is measured.
        broker: ``rabbitmq`` or ``embedded``.
    """

    images: Path | None
    photos: int
    warm_up: int
    rounds: int
    broker: str


@dataclass(frozen=True)
class _Files:
    folder: Path
    photos: list[Path]
    warm_up_folder: Path
    warm_up: list[Path]


def bench_ingest(plan: Plan, console: Console) -> None:
    """Measure ingest and the bare loop in turns, and put out the figures."""
    with scratch() as folder, broker(folder / "broker", kind=plan.broker) as broker_url:
        files = _prepare(plan, folder, console)
        bundle = find_bundle(Settings.load()).path
        fastest = _fastest(bundle, files, console)
        bare = [run_bare(fastest, bundle, files.photos, files.warm_up)]
        rounds = []
        for number in range(1, plan.rounds + 1):
            full = _full(files, folder / f"round-{number}", broker_url)
            bare.append(run_bare(fastest, bundle, files.photos, files.warm_up))
            rounds.append(_compared(number, mean(bare[-2:]), full))
            put(console, "ingest.round", rounds[-1])
    put(console, "ingest", _summary(plan, files, fastest, rounds))


def _prepare(plan: Plan, folder: Path, console: Console) -> _Files:
    warm_up_folder, own = folder / "warm-up", folder / "photos"
    warm_up = write_variants(warm_up_folder, wanted=plan.warm_up)
    if plan.images is not None:
        photos = photos_in(plan.images)
        console.note(f"{len(photos)} photos from {plan.images}.")
        return _Files(plan.images.absolute(), photos, warm_up_folder, warm_up)
    console.note(
        f"Making {plan.photos} different photos of the demo ones by cropping them; "
        "--images DIR takes others."
    )
    photos = write_variants(own, wanted=plan.photos, skip=plan.warm_up)
    return _Files(own, photos, warm_up_folder, warm_up)


def _fastest(bundle: Path, files: _Files, console: Console) -> Arrangement:
    speeds = {}
    for arrangement in arrangements(cores()):
        speeds[arrangement] = run_bare(arrangement, bundle, files.photos, files.warm_up)
        console.note(f"Bare loop, {arrangement}: {speeds[arrangement]:.1f} images/s.")
    return max(speeds, key=speeds.__getitem__)


@dataclass(frozen=True)
class _Round:
    job: Job
    images_per_s: float
    stages_ms: dict[str, float]


def _full(files: _Files, folder: Path, broker_url: str) -> _Round:
    """Take the photographs into a new collection."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    environ = environment(folder / "data", broker_url)
    settings = Settings.load(environ)
    with ExitStack() as stack:
        processes: list[Daemon] = []
        if settings.embedded:
            stack.enter_context(note_stages(stages_file(logs)))
        else:
            workers = noting_workers(_LANES, environ=environ, logs=logs)
            processes = stack.enter_context(workers)
        client = stack.enter_context(Client.open(settings, trusted=True))
        _ingest(client, files.warm_up_folder, processes, logs)
        job = _ingest(client, files.folder, processes, logs)
        _check(client, files, job, logs)
        return _measured(job, logs)


def _ingest(client: Client, folder: Path, processes: Sequence[Daemon], logs: Path) -> Job:
    deadline = time.monotonic() + JOB_TIMEOUT_S
    job = client.ingest_folder(folder)
    while job.state.open and time.monotonic() < deadline:
        insist_alive(processes, logs)
        # Not the client's own waiting, which looks so often that it would cost a few percent.
        time.sleep(_LOOK_S)
        job = client.job(job.id)
    if job.state.open or job.counts.failed:
        raise unfinished(f"Ingesting {folder} ended with {job.counts}", logs)
    return job


def _check(client: Client, files: _Files, job: Job, logs: Path) -> None:
    """Make sure that what was timed is the whole job: stored, searchable, thumbnails made."""
    counts = job.counts
    settled = counts.indexed + counts.duplicate + counts.rejected
    stored = client.count()
    if settled != len(files.photos) or stored < counts.indexed:
        raise unfinished(f"Of {len(files.photos)} photos {stored} are there, {counts}", logs)
    for image in client.recent(min(stored, 100)).images:
        client.thumbnail(image.id)


def _measured(job: Job, logs: Path) -> _Round:
    if job.started_at is None or job.finished_at is None:
        raise unfinished(f"The job {job.id} has no times", logs)
    seconds = job.finished_at - job.started_at
    images = job.counts.indexed + job.counts.duplicate
    notes = read_notes(stages_file(logs), since=job.started_at)
    return _Round(job, images / seconds, per_image_ms(notes, images=images, seconds=seconds))


def _compared(number: int, bare: float, full: _Round) -> dict[str, Any]:
    return {
        "round": number,
        "images_per_s": rounded(full.images_per_s),
        "bare_images_per_s": rounded(bare),
        "ratio": rounded(full.images_per_s / bare),
        "indexed": full.job.counts.indexed,
        "duplicate": full.job.counts.duplicate,
        "rejected": full.job.counts.rejected,
        "stages_ms_per_image": full.stages_ms,
    }


def _summary(
    plan: Plan, files: _Files, fastest: Arrangement, rounds: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    def of(key: str) -> list[float]:
        return [entry[key] for entry in rounds]

    stages = spreads([entry["stages_ms_per_image"] for entry in rounds])
    return {
        "images_per_s": median(of("images_per_s")),
        "bare_images_per_s": median(of("bare_images_per_s")),
        "ratio": median(of("ratio")),
        "ratios": of("ratio"),
        "images": len(files.photos),
        "photos": str(plan.images or "variants of the demo photos"),
        "rounds": len(rounds),
        "broker": plan.broker,
        "bare_arrangement": str(fastest),
        "stages_ms_per_image": {stage: spent["p50"] for stage, spent in stages.items()},
    }
