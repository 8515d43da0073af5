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
from ops.bench.served import Served, await_search, post_search, served
from ops.bench.stack import unfinished
from ops.cli.console import Console
from ops.errors import OpsError
from workers.decode import image_id_of


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
    with served(plan.images, plan.photos, console) as collection:
        console.note(f"Searching {plan.warm_up} times to warm up, then {plan.queries}.")
        samples = _search_all(collection, plan)
    put(console, "e2e", _figures(plan, collection.indexed, samples))


def _search_all(collection: Served, plan: Plan) -> list[_Sample]:
    photos = collection.photos
    # Spread over the collection, so that a few queries are as mixed as many.
    step = max(1, len(photos) // plan.queries)
    wanted = islice(cycle(photos[::step]), plan.warm_up + plan.queries)
    try:
        return [_search(collection.api, photo, plan) for photo in wanted][plan.warm_up :]
    except (OpsError, OSError) as error:
        raise unfinished(str(error), collection.logs) from error


def _search(api: Api, photo: Path, plan: Plan) -> _Sample:
    content = photo.read_bytes()
    begin = time.perf_counter()
    queued = post_search(api, content, k=plan.k, effort=plan.effort)
    posted = time.perf_counter()
    search = await_search(api, queued)
    end = time.perf_counter()
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


def _figures(plan: Plan, indexed: int, samples: Sequence[_Sample]) -> dict[str, Any]:
    whole = spread([sample.total_ms for sample in samples], 50, 95, 99)
    return {
        **{f"{name}_ms": value for name, value in whole.items()},
        "queries": len(samples),
        "self_first": sum(sample.self_first for sample in samples),
        "images": indexed,
        "photos": str(plan.images or "variants of the demo photos"),
        "k": plan.k,
        "effort": plan.effort,
        "stages_ms": spreads([sample.stages_ms for sample in samples]),
    }
