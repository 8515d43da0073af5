"""Jobs: bring images in, and watch every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import url_for

from webui.context import site
from webui.openapi import JSON, MULTIPART, Noun
from webui.schemas import (
    ItemsQuery,
    ItemsSchema,
    JobFormSchema,
    JobJsonSchema,
    JobSchema,
    JobsQuery,
    JobsSchema,
    WaitQuery,
)
from webui.uploads import named_stream
from workers.records import JobKind

if TYPE_CHECKING:
    from workers.client import Client
    from workers.records import Job

noun = Noun("jobs", "Bring images into the collection.")

_JOB = {"job_id": "The id that the job was answered with."}
_LOCATION = {"Location": {"description": "Where to ask.", "schema": {"type": "string"}}}


@noun.route(
    "POST",
    returns=JobSchema,
    status=202,
    headers=_LOCATION,
    bodies={JSON: JobJsonSchema, MULTIPART: JobFormSchema},
    errors=(404,),
)
def create(body: Mapping[str, Any]) -> tuple[Job, int, dict[str, str]]:
    """Start a job over uploaded files, addresses, a folder of the server, or a crawl."""
    job = _start(site().client, body)
    return job, 202, {"Location": url_for("jobs.read", job_id=job.id)}


def _start(client: Client, body: Mapping[str, Any]) -> Job:
    kind = body.get("kind", JobKind.UPLOAD)
    names = {name: body[name] for name in ("label", "labels") if name in body}
    if kind is JobKind.FOLDER:
        return client.ingest_folder(Path(body["path"]), **names)
    if kind is JobKind.URLS:
        return client.ingest_urls(body["urls"], **names)
    if kind is JobKind.CRAWL:
        limits = {name: body[name] for name in ("max_depth", "max_pages") if name in body}
        return client.crawl(body["seed"], **limits, **names)
    return client.ingest_uploads([named_stream(file) for file in body["files"]], **names)


@noun.route("GET", returns=JobsSchema, query=JobsQuery, errors=(404,))
def index(query: Mapping[str, Any]) -> dict[str, Any]:
    """List the jobs, newest first."""
    client, before = site().client, query.get("before")
    if before is not None:
        client.job(before)  # otherwise an unknown one would look like the end of the list
    jobs = client.jobs(limit=query["limit"], before=before)
    return {"jobs": jobs, "next": jobs[-1].id if len(jobs) == query["limit"] else None}


@noun.route("GET", "/<job_id>", returns=JobSchema, path=_JOB, query=WaitQuery, errors=(404,))
def read(query: Mapping[str, Any], job_id: str) -> Job:
    """Tell how far a job is."""
    client = site().client
    return site().polls.wait(
        lambda seconds: client.wait_job(job_id, seconds),
        done=lambda job: not job.state.open,
        seconds=query["wait"],
    )


@noun.route(
    "GET", "/<job_id>/items", returns=ItemsSchema, path=_JOB, query=ItemsQuery, errors=(404,)
)
def items(query: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    """List the items of a job with their outcome, and the reason where it is a bad one."""
    found = site().client.items(
        job_id, state=query.get("state"), limit=query["limit"], after=query["after"]
    )
    return {"items": found, "next": found[-1].id if len(found) == query["limit"] else None}


@noun.route("POST", "/<job_id>/cancel", returns=JobSchema, path=_JOB, errors=(403, 404))
def cancel(job_id: str) -> Job:
    """Cancel a job; what it has brought in stays."""
    return site().client.cancel_job(job_id)
