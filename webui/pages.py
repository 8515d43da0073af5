"""The pages: shells that scripts fill through the API."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, jsonify, render_template
from flask.typing import ResponseReturnValue

from webui.context import site
from webui.uploads import MAX_FILES
from workers.client import DEFAULT_CRAWL_DEPTH, DEFAULT_CRAWL_PAGES
from workers.options import COLLAPSE_DISTANCE, DEFAULT_EFFORT, DEFAULT_K, MAX_EFFORT, MIN_EFFORT
from workers.searching import candidates_for

pages = Blueprint("pages", __name__)


@pages.context_processor
def _limits() -> dict[str, Any]:
    return {"settings": site().settings, "max_files": MAX_FILES}


def _efforts() -> list[int | None]:
    """Images that each effort compares, from the lowest; ``None`` is every one."""
    return [candidates_for(effort, DEFAULT_K) for effort in range(MIN_EFFORT, MAX_EFFORT + 1)]


@pages.get("/")
def search() -> str:
    """Return the search page; ``?ticket=`` shows a search that was made before."""
    return render_template(
        "search.html",
        default_k=DEFAULT_K,
        default_effort=DEFAULT_EFFORT,
        candidates=_efforts(),
        collapse_distance=COLLAPSE_DISTANCE,
    )


@pages.get("/jobs")
def jobs() -> str:
    """Return the page that lists jobs and starts new ones."""
    return render_template(
        "jobs.html", default_depth=DEFAULT_CRAWL_DEPTH, default_pages=DEFAULT_CRAWL_PAGES
    )


@pages.get("/jobs/<job_id>")
def job(job_id: str) -> str:
    """Return the page of one job."""
    return render_template("job.html", job_id=job_id)


@pages.get("/collection")
def collection() -> str:
    """Return the page of the collection."""
    return render_template("collection.html")


@pages.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Answer whether the server can reach its collection; for supervisors and load balancers."""
    site().client.count()
    return jsonify(status="ok")
