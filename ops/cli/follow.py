"""Watching a job to its end, and telling how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import chain
from types import TracebackType
from typing import Self

from tqdm import tqdm

from ops.cli.console import Console, shown, told
from ops.cli.exits import Exit
from workers.client import Client
from workers.records import Item, ItemState, Job, JobState, Problem

FIRST_PROBLEMS = 10

_LOOK_S = 0.25
_LINE_EVERY_S = 5.0


def follow(client: Client, job: Job, console: Console) -> Job:
    """Return a job when it is over. Ctrl-C cancels it; a second one leaves it as it is.

    Raises:
        KeyboardInterrupt: At the second Ctrl-C.
    """
    try:
        return _watch(client, job, console)
    except KeyboardInterrupt:
        console.note(
            "\nCancelling: what is under way is finished, and what was taken in stays. "
            "Ctrl-C again leaves at once."
        )
        return _watch(client, client.cancel_job(job.id), console)


def report(client: Client, job: Job, console: Console) -> Exit:
    """Print how a job ended and return the code for it."""
    problems = first_problems(client, job)
    record = {"job": job, "problems": problems, "seconds": _seconds(job)}
    console.result(record, "\n".join(chain(describe(job), reasons(job, problems))))
    if job.state is JobState.CANCELLED:
        console.note("Cancelled. What was taken in stays and is found by searches.")
    refused = job.counts.rejected + job.counts.failed
    whole = job.state is JobState.DONE and not refused
    return Exit.DONE if whole else Exit.FAILED


def first_problems(client: Client, job: Job) -> list[Item]:
    """Return the first items of a job that were rejected or failed."""
    found = [client.items(job.id, state=state, limit=FIRST_PROBLEMS) for state in _bad_states(job)]
    return sorted(chain(*found), key=lambda item: item.id)[:FIRST_PROBLEMS]


def identity(job: Job) -> str:
    """Return the accounting identity of a job with its numbers."""
    counts = job.counts
    parts = [f"{getattr(counts, name.value):,} {name.value}" for name in _OUTCOMES]
    return f"{counts.submitted:,} submitted = {' + '.join(parts)}"


def describe(job: Job) -> list[str]:
    """Return a job as lines for people."""
    # Cancelling finishes what was never begun, so the rate of a cancelled job means nothing.
    told_rate = job.rate_per_s and job.state is not JobState.CANCELLED
    rate = f" ({job.rate_per_s:.1f} images/s)" if told_rate else ""
    lines = [f"Job {job.id}, {shown(job.label)}: {job.state} in {_seconds(job):.1f} s{rate}"]
    lines.append(f"  {identity(job)}")
    if job.pages:
        pages = ", ".join(f"{count:,} {state}" for state, count in job.pages.items())
        lines.append(f"  pages: {pages}")
    if job.error:
        lines.append(f"  {told(job.error)}")
    if job.trouble and job.state.open:
        lines.append(f"  {told(job.trouble)}")
    return lines


def item_line(item: Item) -> str:
    """Return an item as one line, with the reason where it was refused."""
    if item.problem is None:
        return f"  {item.state}: {shown(item.source)}"
    named = item.source in item.problem.message
    reason = told(item.problem)
    return (
        f"  {item.state}: {reason}" if named else f"  {item.state}: {shown(item.source)}: {reason}"
    )


def reasons(job: Job, problems: Sequence[Item]) -> list[str]:
    """Return the first bad items of a job as lines, and where the others are to be had."""
    lines = [item_line(item) for item in problems]
    more = job.counts.rejected + job.counts.failed - len(problems)
    if more > 0:
        shows = [f"`lookalike jobs show {job.id} --items {state}`" for state in _bad_states(job)]
        lines.append(f"  and {more:,} more: {' and '.join(shows)}")
    return lines


_BAD = (ItemState.REJECTED, ItemState.FAILED)
_OUTCOMES = (
    ItemState.INDEXED,
    ItemState.DUPLICATE,
    ItemState.REJECTED,
    ItemState.FAILED,
    ItemState.CANCELLED,
    ItemState.PENDING,
)


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    monitor_interval = 0  # no thread that redraws: every look at the job does


class _Progress:
    """A bar on a terminal; elsewhere a line every few seconds, for whoever reads the log."""

    def __init__(self, job: Job, console: Console) -> None:
        self._console = console
        self._said_at = time.monotonic()
        self._trouble: Problem | None = None
        self._bar = _Bar(
            desc=job.kind.value,
            unit=" images",
            file=sys.stderr,
            disable=not console.live,
            dynamic_ncols=True,
            leave=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, job: Job) -> None:
        """Show how far the job is."""
        counts = job.counts
        self._bar.total = counts.submitted or None
        self._bar.n = counts.finished
        bad = counts.rejected + counts.failed
        self._bar.set_postfix_str(f"{bad} refused" if bad else "")
        if job.trouble != self._trouble:
            self._trouble = job.trouble
            self._console.note(
                told(job.trouble) if job.trouble else f"{shown(job.label)} goes on."
            )
        if self._bar.disable and time.monotonic() - self._said_at > _LINE_EVERY_S:
            self._said_at = time.monotonic()
            self._console.note(_line(job))


def _watch(client: Client, job: Job, console: Console) -> Job:
    with _Progress(job, console) as progress:
        while job.state.open:
            progress.show(job)
            job = client.wait_job(job.id, _LOOK_S)
    return job


def _line(job: Job) -> str:
    counts = job.counts
    known = f"{counts.submitted:,}" + ("" if job.listing_done else " so far")
    rate = f", {job.rate_per_s:.1f}/s" if job.rate_per_s else ""
    left = f", {job.eta_s:.0f} s left" if job.eta_s else ""
    return f"{shown(job.label)}: {counts.finished:,} of {known}{rate}{left}"


def _bad_states(job: Job) -> list[ItemState]:
    return [state for state in _BAD if getattr(job.counts, state.value)]


def _seconds(job: Job) -> float:
    return round((job.finished_at or time.time()) - (job.started_at or job.created_at), 3)
