"""Answering a search: embed the query, ask the probes, fold what is alike, and report.

Effort trades time for recall with one number: ``250 * 2**effort`` images are compared by feature,
at least four times as many as are asked for, and at 10 every image.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from celery import Celery
from numpy.typing import NDArray

from store import Filter, Hit, Partial, Query
from workers.collapsing import MOST_HITS, Kept, folded
from workers.decoders import ToDecode
from workers.errors import Failed, NotFound, Rejected, WorkerError
from workers.ingest import fetch_to_spool
from workers.ledger import SearchWork
from workers.options import DEFAULT_EFFORT, DEFAULT_K, MAX_EFFORT, MIN_EFFORT, SearchOptions
from workers.probing import Answer, fan_out
from workers.records import Failure, ItemState, Problem, SearchState
from workers.resources import Resources
from workers.settings import Settings
from workers.stopwatch import Stopwatch

__all__ = ["DEFAULT_EFFORT", "DEFAULT_K", "MAX_EFFORT", "MIN_EFFORT", "candidates_for", "search"]

logger = logging.getLogger(__name__)

Vectors = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Code, shape=(W,), and feature, shape=(D,)."""

_INTERNAL = Problem(
    "internal", "The search failed for a reason inside lookalike.", "See the worker's log."
)


def candidates_for(effort: int, k: int) -> int | None:
    """Return how many images to compare by feature; ``None`` means every one."""
    return None if effort >= MAX_EFFORT else max(250 * 2**effort, 4 * k)


def search(resources: Resources, app: Celery, ticket: str) -> None:
    """Work off one search: whatever happens, its ticket gets an end."""
    searches = resources.ledger.searches
    work = searches.claim(ticket)
    if work is None:
        return
    try:
        _give_up_if_hopeless(work, resources.settings)
        state, result = _answer(resources, app, work)
    except WorkerError as error:
        searches.finish(ticket, SearchState.FAILED, problem=Problem.of(error))
    except Exception:
        logger.exception("Search %s failed; its ticket says so.", ticket)
        searches.finish(ticket, SearchState.FAILED, problem=_INTERNAL)
    else:
        searches.finish(ticket, state, result=result)
    _tidy(resources, work)


def _answer(
    resources: Resources, app: Celery, work: SearchWork
) -> tuple[SearchState, dict[str, Any]]:
    watch = Stopwatch()
    vectors = _embed(resources, work, watch)
    answer, kept = _found(resources, app, work.options, vectors, watch)
    with watch.stage("records"):
        hits = _hits(resources, answer.merged, kept)
    duplicates = sum(len(each.duplicates) for each in kept)
    result = {
        "hits": hits,
        "report": {**_report(resources, work, answer, watch.timings_ms), "folded": duplicates},
    }
    return SearchState.DONE if answer.whole else SearchState.PARTIAL, result


def _found(
    resources: Resources, app: Celery, options: SearchOptions, vectors: Vectors, watch: Stopwatch
) -> tuple[Answer, list[Kept]]:
    """Return the answer of the probes, and which of its hits stay.

    Where near-duplicates are folded, more hits are asked for at first, and many more when too few
    stay.
    """
    if options.collapse is None:
        answer = _ask(resources, app, options, options.k, vectors, watch)
        return answer, [Kept(place) for place in range(len(answer.merged))]
    for wanted in (2 * options.k, MOST_HITS):
        answer = _ask(resources, app, options, wanted, vectors, watch)
        with watch.stage("fold"):
            metric = resources.bundle.metric
            kept = folded(resources.shards, answer.merged, metric=metric, limit=options.collapse)
        if len(kept) >= options.k or len(answer.merged) < wanted:
            break
    return answer, kept[: options.k]


def _ask(
    resources: Resources,
    app: Celery,
    options: SearchOptions,
    k: int,
    vectors: Vectors,
    watch: Stopwatch,
) -> Answer:
    settings = resources.settings
    query = Query(
        code=vectors[0],
        feature=vectors[1],
        k=k,
        candidates=candidates_for(options.effort, k),
        code_weight=resources.bundle.code_weight,
        max_distance=options.max_distance,
        filter=_filter(options),
    )
    with watch.stage("fan_out"):
        return fan_out(
            app,
            query,
            shards=settings.shards,
            groups=settings.probe_groups,
            timeout_s=settings.search_timeout_s,
        )


def _filter(options: SearchOptions) -> Filter | None:
    wanted = Filter(
        labels=options.labels, source=options.source, since=options.since, until=options.until
    )
    return None if wanted == Filter() else wanted


def _hits(resources: Resources, found: Partial, kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """Return what is kept of the hits, in plain types."""
    places = np.array([each.place for each in kept], np.intp)
    some = Partial(
        ids=found.ids[places], distances=found.distances[places], hamming=found.hamming[places]
    )
    duplicates = dict(zip(some.names(), (each.duplicates for each in kept), strict=True))
    return [
        {
            "rank": rank,
            **{name: getattr(hit, name) for name in _HIT_FIELDS},
            "duplicates": duplicates[hit.id],
        }
        for rank, hit in enumerate(resources.shards.hits(some), start=1)
    ]


# Not `asdict`, which copies a thousand hits value by value.
_HIT_FIELDS = tuple(each.name for each in fields(Hit))


def _report(
    resources: Resources, work: SearchWork, answer: Answer, timings_ms: dict[str, float]
) -> dict[str, Any]:
    merged = answer.merged
    return {
        "bundle": resources.bundle.id,
        "effort": work.options.effort,
        "shards_asked": resources.settings.shards,
        "shards_answered": answer.shards_answered,
        "groups_asked": answer.asked,
        "groups_answered": answer.answered,
        "problem": answer.problem.to_dict() if answer.problem else None,
        "buckets": merged.buckets,
        # What a silent group holds is not known to be farther away than anything.
        "radius": merged.radius if answer.whole else -1,
        "complete": merged.complete and answer.whole,
        "candidates": merged.candidates,
        "reranked": merged.reranked,
        "timings_ms": {
            "queued": round((work.started_at - work.created_at) * 1000, 3),
            **timings_ms,
            **{f"probe_{stage}": round(ms, 3) for stage, ms in merged.timings_ms.items()},
            "total": round((time.time() - work.created_at) * 1000, 3),
        },
    }


def _embed(resources: Resources, work: SearchWork, watch: Stopwatch) -> Vectors:
    kind, _, rest = work.ref.partition(":")
    if kind == "image":
        vectors = resources.shards.vectors(rest)
        if vectors is None:
            raise NotFound(f"There is no image {rest}.", remedy="It may have been deleted.")
        return vectors
    with watch.stage("fetch"):
        path = _query_file(resources, work)
    with watch.stage("decode"):
        file = ToDecode(path, _label(work), ticket=work.ticket)
        decoded = resources.decoders.decode([file])[0]
    if isinstance(decoded, Failure):
        raise _as_error(decoded)
    with watch.stage("network"):
        embedding = resources.embed(decoded.pixels[np.newaxis])
    return embedding.codes[0], embedding.features[0]


def _query_file(resources: Resources, work: SearchWork) -> Path:
    kind, _, rest = work.ref.partition(":")
    if kind == "spool":
        return resources.files.spooled(rest)
    return fetch_to_spool(
        resources.fetcher,
        resources.files,
        work.ref,
        name=_spool_name(work),
        max_bytes=resources.settings.max_image_bytes,
    )


def _label(work: SearchWork) -> str:
    return "The query image" if work.ref.startswith("spool:") else work.ref


def _spool_name(work: SearchWork) -> str:
    kind, _, rest = work.ref.partition(":")
    return rest if kind == "spool" else f"query-{work.ticket}"


def _tidy(resources: Resources, work: SearchWork) -> None:
    if not work.ref.startswith("image:"):
        resources.files.drop(resources.files.spooled(_spool_name(work)))


def _as_error(failure: Failure) -> WorkerError:
    kind = Rejected if failure.state is ItemState.REJECTED else Failed
    problem = failure.problem
    return kind(problem.message, remedy=problem.remedy, code=problem.code)


def _give_up_if_hopeless(work: SearchWork, settings: Settings) -> None:
    if work.attempts > settings.max_attempts:
        raise Failed(
            f"This search was taken up {work.attempts - 1} times and its worker died each time.",
            remedy="Try another form of the image.",
            code="worker_died",
        )
