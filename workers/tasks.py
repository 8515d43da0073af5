"""The Celery tasks. Each decodes its arguments, calls a plain function, and is done."""

from __future__ import annotations

from typing import Any

from celery import Celery

from workers import crawl, ingest, probing, searching
from workers.app import make_app
from workers.dispatch import Dispatcher
from workers.resources import Resources


def app_for(resources: Resources) -> Celery:
    """Return an application whose tasks work with these resources."""
    app = make_app(resources.settings)

    def dispatcher() -> Dispatcher:
        return Dispatcher(app, resources.ledger, resources.settings)

    @app.task(name="search", shared=False)
    def search(ticket: str) -> None:
        searching.search(resources, app, ticket)

    @app.task(name="probe", shared=False)
    def probe(shard: int, group: int, groups: int, query: dict[str, Any]) -> dict[str, Any]:
        return probing.probe(resources, shard, group, groups, probing.unpacked_query(query))

    @app.task(name="ingest", shared=False)
    def ingest_items(job_id: str, item_ids: list[int]) -> None:
        ingest.ingest(resources, dispatcher(), job_id, item_ids)

    @app.task(name="crawl", shared=False)
    def crawl_step(job_id: str) -> None:
        crawl.step(resources, dispatcher(), job_id)

    return app
