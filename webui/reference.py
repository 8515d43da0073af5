"""The API description as a page, written from the OpenAPI document on the server.

Viewers from a CDN would need the network and a looser content policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, render_template
from flask_smorest import Api

from webui.openapi import API_PREFIX


def of(api: Api) -> Blueprint:
    """Return a blueprint that serves the description of ``api`` at ``/api/v1/docs``."""
    blueprint = Blueprint("reference", __name__, url_prefix=API_PREFIX)

    @blueprint.get("/docs")
    def docs() -> str:
        return render_template("reference.html", spec=api.spec.to_dict(), type_of=type_of)

    return blueprint


def type_of(schema: Mapping[str, Any]) -> str:
    """Return a JSON schema as a few words, such as ``list of Job or null``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(type_of(one) for one in schema["anyOf"])
    kinds = schema.get("type", "any")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    return " or ".join(_named(name, schema) for name in names)


def _named(name: str, schema: Mapping[str, Any]) -> str:
    if name == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if "enum" in schema and name != "null":
        return ", ".join(str(value) for value in schema["enum"] if value is not None)
    return "file" if schema.get("format") == "binary" else name
