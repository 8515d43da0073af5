"""Labels: what the images are labelled with."""

from __future__ import annotations

from typing import Any

from webui.context import site
from webui.openapi import Noun
from webui.schemas import LabelsSchema

noun = Noun("labels", "Words that images are labelled with.")


@noun.route("GET", returns=LabelsSchema)
def index() -> dict[str, Any]:
    """List the labels with the number of their images, the most frequent first."""
    counts = site().client.labels()
    return {"labels": [{"label": label, "images": images} for label, images in counts.items()]}
