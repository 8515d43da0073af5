"""``lookalike jobs``: what was taken in, what was refused and why, and what still runs."""

from __future__ import annotations

import time

import click

from ops.cli.collection import check_collection
from ops.cli.console import Console, plain, shown
from ops.cli.follow import describe, item_line
from ops.cli.options import COLLECTION, Group, settings_options
from ops.cli.session import opened
from workers.records import ItemState, Job
from workers.settings import Settings

DEFAULT_LIMIT = 50

_limit = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Most lines to print.",
)


@click.group(cls=Group, default="list")
def jobs() -> None:
    """List, show and cancel jobs. Without a name: list."""


@jobs.command("list")
@_limit
@settings_options(*COLLECTION)
@click.pass_obj
def list_(console: Console, limit: int, settings: Settings) -> None:
    """List the jobs, newest first."""
    check_collection(settings)
    with opened(settings, console, workers=False) as client:
        found = client.jobs(limit=limit)
    for job in found:
        console.result({"job": job}, _line(job))
    if not found:
        console.note("There are no jobs yet. `lookalike ingest FOLDER` starts one.")


@jobs.command("show")
@click.argument("job_id", metavar="ID")
@click.option(
    "--items",
    "state",
    type=click.Choice([state.value for state in ItemState]),
    help="Also list the items in this state, with the reason where it is a bad one.",
)
@_limit
@settings_options(*COLLECTION)
@click.pass_obj
def show(console: Console, job_id: str, state: str | None, limit: int, settings: Settings) -> None:
    """Show a job with its counts, and its items in one state."""
    check_collection(settings)
    with opened(settings, console, workers=False) as client:
        job = client.job(job_id)
        items = client.items(job_id, state=ItemState(state), limit=limit) if state else []
    record = {"job": job, "items": items} if state else {"job": job}
    console.result(plain(record), "\n".join([*describe(job), *map(item_line, items)]))


@jobs.command("cancel")
@click.argument("job_id", metavar="ID")
@settings_options(*COLLECTION)
@click.pass_obj
def cancel(console: Console, job_id: str, settings: Settings) -> None:
    """Cancel what a job has not begun; what it has taken in stays."""
    check_collection(settings)
    with opened(settings, console, workers=False) as client:
        was_over = not client.job(job_id).state.open
        job = client.cancel_job(job_id)
    console.result({"job": job}, "\n".join(describe(job)))
    if was_over:
        console.note("Nothing was cancelled: the job was over already.")


def _line(job: Job) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created_at))
    counts = job.counts
    refused = counts.rejected + counts.failed
    bad = f", {refused:,} refused" if refused else ""
    done = f"{counts.finished:,} of {counts.submitted:,}{bad}"
    return f"{job.id}  {when}  {job.state:<9}  {job.kind:<6}  {done:<24}  {shown(job.label)}"
