"""Answering a search: embed the query, fan out over groups of buckets, merge, and report.

Effort trades time for recall with one number: ``250 * 2**effort`` images are compared by feature,
at least four times as many as are asked for, and at 10 every image.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from celery import Celery
from celery.exceptions import TimeoutError as NoAnswer
from celery.result import AsyncResult
from numpy.typing import NDArray

from store import Partial, Query, merge
from workers.app import PROBE
from workers.decoders import ToDecode
from workers.dispatch import broker_errors
from workers.errors import Failed, NotFound, Rejected, WorkerError
from workers.ingest import fetch_to_spool
from workers.ledger import SearchWork
from workers.options import DEFAULT_EFFORT, DEFAULT_K, MAX_EFFORT, MIN_EFFORT
from workers.records import Failure, ItemState, Problem, SearchState
from workers.resources import Resources
from workers.settings import Settings
from workers.stopwatch import Stopwatch

__all__ = [
    "DEFAULT_EFFORT",
    "DEFAULT_K",
    "MAX_EFFORT",
    "MIN_EFFORT",
    "Answer",
    "candidates_for",
    "fan_out",
    "merged_answer",
    "probe",
    "search",
]

logger = logging.getLogger(__name__)

_NO_ANSWER = Problem(
    "no_answer",
    "No probe worker answered in time.",
    "Start one with `lookalike worker`, or raise LOOKALIKE_SEARCH_TIMEOUT_S.",
)
_INTERNAL = Problem(
    "internal", "The search failed for a reason inside lookalike.", "See the worker's log."
)


def candidates_for(effort: int, k: int) -> int | None:
    """Return how many images to compare by feature; ``None`` means every one."""
    return None if effort >= MAX_EFFORT else max(250 * 2**effort, 4 * k)


@dataclass(frozen=True)
class Answer:
    """The merged answer of those shards and groups that answered in time.

    Attributes:
        problem: Why others did not, if so.
    """

    merged: Partial
    asked: int
    answered: int
    shards_answered: int
    problem: Problem | None


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


def probe(
    resources: Resources, shard: int, group: int, groups: int, query: Query
) -> dict[str, Any]:
    """Search one group of one shard's buckets.

    Returns:
        In plain types, to be sent back: ``partial``, or the ``problem`` that there is none.
    """
    try:
        partial = resources.shards.search(shard, query, group=group, groups=groups)
    except WorkerError as error:
        logger.error("Shard %d could not be searched: %s", shard, error)
        return {"problem": Problem.of(error).to_dict()}
    return {"partial": partial.to_dict()}


def fan_out(app: Celery, query: Query, *, shards: int, groups: int, timeout_s: float) -> Answer:
    """Send a query to every group of every shard and merge what comes back in time.

    Raises:
        Failed: Nothing came back.
        Unavailable: The broker does not answer.
    """
    deadline = time.monotonic() + timeout_s
    vector = query.feature.astype("<f4").tobytes()
    with broker_errors():
        results = [
            app.send_task(
                "probe",
                args=(
                    shard,
                    group,
                    groups,
                    query.code.tobytes(),
                    vector,
                    query.k,
                    query.candidates,
                    query.code_weight,
                ),
                queue=PROBE,
                expires=timeout_s,
                # Nobody waits for a probe after a restart of the broker; writing it to disk first
                # costs 1.5 ms.
                delivery_mode="transient",
                ignore_result=False,
            )
            for shard in range(shards)
            for group in range(groups)
        ]
        replies = [_collect(result, deadline) for result in results]
    return merged_answer(replies, query.k, groups)


def merged_answer(replies: Sequence[Partial | Problem], k: int, groups: int) -> Answer:
    """Merge what the probes of one query replied.

    Args:
        replies: One for each group of the first shard, then of the second, and so on.
        k: Number of hits wanted.
        groups: Groups of each shard.

    Raises:
        Failed: There is no partial list among them.
    """
    partials = [reply for reply in replies if isinstance(reply, Partial)]
    problems = [reply for reply in replies if isinstance(reply, Problem)]
    if not partials:
        worst = problems[0]
        raise Failed(worst.message, remedy=worst.remedy, code=worst.code)
    of_shards = [replies[first : first + groups] for first in range(0, len(replies), groups)]
    return Answer(
        merged=merge(partials, k),
        asked=len(replies),
        answered=len(partials),
        shards_answered=sum(
            all(isinstance(reply, Partial) for reply in of_shard) for of_shard in of_shards
        ),
        problem=problems[0] if problems else None,
    )


def _collect(result: AsyncResult, deadline: float) -> Partial | Problem:
    try:
        reply = result.get(timeout=max(0.0, deadline - time.monotonic()))
    except NoAnswer:
        return _NO_ANSWER
    finally:
        result.forget()
    if "problem" in reply:
        return Problem(**reply["problem"])
    return Partial.from_dict(reply["partial"])


def _answer(
    resources: Resources, app: Celery, work: SearchWork
) -> tuple[SearchState, dict[str, Any]]:
    watch = Stopwatch()
    settings = resources.settings
    code, feature = _embed(resources, work, watch)
    query = Query(
        code=code,
        feature=feature,
        k=work.options.k,
        candidates=candidates_for(work.options.effort, work.options.k),
        code_weight=resources.bundle.code_weight,
    )
    with watch.stage("fan_out"):
        answer = fan_out(
            app,
            query,
            shards=settings.shards,
            groups=settings.probe_groups,
            timeout_s=settings.search_timeout_s,
        )
    whole = answer.answered == answer.asked
    result = {
        "hits": [
            {"rank": rank, **asdict(hit)}
            for rank, hit in enumerate(resources.shards.hits(answer.merged), start=1)
        ],
        "report": _report(resources, work, answer, watch.timings_ms),
    }
    return SearchState.DONE if whole else SearchState.PARTIAL, result


def _report(
    resources: Resources, work: SearchWork, answer: Answer, timings_ms: dict[str, float]
) -> dict[str, Any]:
    merged = answer.merged
    whole = answer.answered == answer.asked
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
        "radius": merged.radius if whole else -1,
        "complete": merged.complete and whole,
        "candidates": merged.candidates,
        "reranked": merged.reranked,
        "timings_ms": {
            "queued": round((work.started_at - work.created_at) * 1000, 3),
            **timings_ms,
            **{f"probe_{stage}": round(ms, 3) for stage, ms in merged.timings_ms.items()},
            "total": round((time.time() - work.created_at) * 1000, 3),
        },
    }


def _embed(
    resources: Resources, work: SearchWork, watch: Stopwatch
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
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
