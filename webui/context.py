"""What the views of one application share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flask import Flask, current_app

if TYPE_CHECKING:
    from webui.waiting import LongPolls
    from workers.client import Client
    from workers.settings import Settings

_KEY = "lookalike"


@dataclass(frozen=True)
class Site:
    """What the views of one application share."""

    client: Client
    settings: Settings
    polls: LongPolls


def attach(app: Flask, site: Site) -> None:
    """Make ``site`` known to the views of ``app``."""
    app.extensions[_KEY] = site


def site_of(app: Flask) -> Site:
    """Return what was attached to ``app``."""
    return cast(Site, app.extensions[_KEY])


def site() -> Site:
    """Return the site that the current request is for."""
    return site_of(current_app)
