"""The application factory."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from flask import Flask

from webui import errors, reference, security
from webui.api import images, jobs, labels, searches, status
from webui.context import Site, attach
from webui.openapi import open_api, state_limit
from webui.pages import pages
from webui.uploads import MAX_FILES, UploadRequest
from webui.waiting import LongPolls

if TYPE_CHECKING:
    from workers.client import Client
    from workers.settings import Settings

_WAITING_SHARE = 0.75
_FORM_TEXT_PARTS = 20


class LookalikeApp(Flask):
    """Flask with uploads that go to temporary files."""

    request_class = UploadRequest


def create_app(client: Client, settings: Settings) -> Flask:
    """Return the site as a WSGI application.

    Args:
        client: Does what the visitors ask for; the caller closes it, after the server.
        settings: Hosts to answer to, and limits.
    """
    app = LookalikeApp("webui")
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_upload_bytes,
        MAX_FORM_PARTS=MAX_FILES + _FORM_TEXT_PARTS,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the provider type is abstract
    waiting = LongPolls(most=int(settings.web_threads * _WAITING_SHARE))
    attach(app, Site(client, settings, waiting))
    security.protect(app, names=(settings.host, *settings.allowed_hosts))
    api = open_api(app, version=version("lookalike"))
    for noun in (searches.noun, jobs.noun, images.noun, labels.noun, status.noun):
        api.register_blueprint(noun.blueprint)
    for schema in ("SearchJson", "SearchForm"):
        state_limit(api, schema, "k", settings.max_k)
    app.register_blueprint(pages)
    app.register_blueprint(reference.of(api))
    errors.register(app)
    return app
