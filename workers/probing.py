"""Probes: a query goes to every group of every shard, and what comes back in time is merged."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from celery import Celery
from celery.exceptions import TimeoutError as NoAnswer
from celery.result import AsyncResult

from store import Filter, Partial, Query, merge
from workers.app import PROBE
from workers.dispatch import broker_errors
from workers.errors import Failed, WorkerError
from workers.records import Problem
from workers.resources import Resources

logger = logging.getLogger(__name__)

_NO_ANSWER = Problem(
    "no_answer",
    "No probe worker answered in time.",
    "Start one with `lookalike worker`, or raise LOOKALIKE_SEARCH_TIMEOUT_S.",
)


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

    @property
    def whole(self) -> bool:
        """Whether every group answered."""
        return self.answered == self.asked


def probe(
    resources: Resources, shard: int, group: int, groups: int, query: Query
) -> dict[str, Any]:
    """Search one group of one shard's buckets.

    Returns:
        As msgpack takes it, to be sent back: ``partial``, or the ``problem`` that there is none.
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
    packed = packed_query(query)
    with broker_errors():
        results = [
            app.send_task(
                "probe",
                args=(shard, group, groups, packed),
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


def packed_query(query: Query) -> dict[str, Any]:
    """Return a query as msgpack takes it."""
    return {
        "code": query.code.tobytes(),
        "feature": query.feature.astype("<f4").tobytes(),
        "k": query.k,
        "candidates": query.candidates,
        "code_weight": query.code_weight,
        "max_distance": query.max_distance,
        "filter": asdict(query.filter) if query.filter else None,
    }


def unpacked_query(packed: Mapping[str, Any]) -> Query:
    """Return the query that :func:`packed_query` was called on."""
    wanted = packed["filter"]
    return Query(
        code=np.frombuffer(packed["code"], np.uint8),
        feature=np.frombuffer(packed["feature"], "<f4"),
        k=packed["k"],
        candidates=packed["candidates"],
        code_weight=packed["code_weight"],
        max_distance=packed["max_distance"],
        filter=Filter(**{**wanted, "labels": tuple(wanted["labels"])}) if wanted else None,
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
