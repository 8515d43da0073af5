"""Routes that are declared once, for serving and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Flask, request
from flask_smorest import Api, Blueprint
from marshmallow import RAISE, Schema, ValidationError, fields
from webargs.multidictproxy import MultiDictProxy
from werkzeug.datastructures import CombinedMultiDict
from werkzeug.exceptions import BadRequest

from webui.errors import WebError

API_PREFIX = "/api/v1"
JSON = "application/json"
MULTIPART = "multipart/form-data"
JSON_BYTES = 32 << 20

View = TypeVar("View", bound=Callable[..., Any])
Bodies = Mapping[str, type[Schema]]

# Any request may meet these; a route adds its own. 500 is nobody's intention but is answered
# with the same body.
_COMMON_ERRORS = (400, 422, 500, 503)


class ErrorDetailSchema(Schema):
    """What went wrong."""

    code = fields.String(required=True, metadata={"description": "Stable word for programs."})
    message = fields.String(required=True, metadata={"description": "A sentence for people."})
    remedy = fields.String(required=True, metadata={"description": "What to do; may be empty."})
    status = fields.Integer(required=True, metadata={"description": "The HTTP status."})


class ErrorSchema(Schema):
    """The body of every answer with a status of 400 or more."""

    error = fields.Nested(ErrorDetailSchema, required=True)


def open_api(app: Flask, *, version: str) -> Api:
    """Return the API of ``app``, which serves its description at ``/api/v1/openapi.json``."""
    app.config.update(
        API_TITLE="lookalike",
        API_VERSION=version,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX=API_PREFIX,
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={"info": {"description": _DESCRIPTION}},
    )
    api = Api()
    api.ERROR_SCHEMA = ErrorSchema
    api.init_app(app)
    return api


def state_limit(api: Api, schema: str, field: str, most: int) -> None:
    """Describe the largest value of a field, where a setting decides on it."""
    api.spec.components.schemas[schema]["properties"][field]["maximum"] = most


class Noun:
    """The routes of one noun of the API."""

    def __init__(self, name: str, description: str) -> None:
        self.blueprint = Blueprint(
            name, __name__, url_prefix=f"{API_PREFIX}/{name}", description=description
        )

    def route(
        self,
        method: str,
        rule: str = "",
        *,
        returns: type[Schema] | Mapping[str, Any] | None,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, Any] | None = None,
        path: Mapping[str, str] | None = None,
        query: type[Schema] | None = None,
        bodies: Bodies | None = None,
        errors: Sequence[int] = (),
    ) -> Callable[[View], View]:
        """Serve the decorated view and describe it; its docstring becomes the description.

        Args:
            method: HTTP method.
            rule: Path below the noun.
            returns: Schema that the view's value is written with, or a plain description of it
                for a view that returns a response of its own.
            status: Status of success.
            content_type: Type of the answer.
            headers: Headers of the answer worth describing.
            path: Description of each path parameter.
            query: Schema of the query string; its fields are passed as one mapping.
            bodies: Schema of the body by content type; passed as one mapping.
            errors: Statuses of this route besides those that any route may answer with.
        """
        blueprint = self.blueprint

        def declare(view: View) -> View:
            described: Any = view
            if bodies is not None:
                described = _documented(blueprint, _reading(described, bodies), bodies)
            if query is None:
                described = _without_query(described)
            else:
                described = blueprint.arguments(query, location="query", unknown=RAISE)(described)
            described = blueprint.response(
                status, returns, content_type=content_type, headers=headers
            )(described)
            for error in _errors(bodies, errors):
                described = blueprint.alt_response(error, HTTPStatus(error).name)(described)
            parameters = [_path_parameter(*item) for item in (path or {}).items()]
            blueprint.route(rule, methods=[method], parameters=parameters)(described)
            return view

        return declare


def _errors(bodies: Bodies | None, own: Sequence[int]) -> Iterator[int]:
    of_bodies = (413, 415, 403) if bodies is not None else ()
    yield from sorted({*_COMMON_ERRORS, *of_bodies, *own})


def _path_parameter(name: str, description: str) -> dict[str, str]:
    return {"in": "path", "name": name, "description": description}


def _without_query(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def refuse_first(*args: Any, **kwargs: Any) -> Any:
        if request.args:
            raise ValidationError({name: ["Unknown field."] for name in request.args})
        return view(*args, **kwargs)

    return refuse_first


def _documented(blueprint: Blueprint, view: Callable[..., Any], bodies: Bodies) -> Any:
    content = {kind: {"schema": schema} for kind, schema in bodies.items()}
    return blueprint.doc(requestBody={"required": True, "content": content})(view)


def _reading(view: Callable[..., Any], bodies: Bodies) -> Callable[..., Any]:
    """Return ``view`` with the body of the request, read by its content type, as last argument."""

    @wraps(view)
    def read_first(*args: Any, **kwargs: Any) -> Any:
        return view(*args, _body(bodies), **kwargs)

    return read_first


def _body(bodies: Bodies) -> Mapping[str, Any]:
    schema = bodies.get(request.mimetype)
    if schema is None:
        raise WebError(
            415,
            "unsupported_media_type",
            f"The body is {request.mimetype or 'of no stated type'}.",
            remedy=f"Send it as {' or '.join(bodies)}.",
        )
    return _loaded(schema())


def _loaded(schema: Schema) -> Mapping[str, Any]:
    if request.mimetype != JSON:
        parts: CombinedMultiDict[str, Any] = CombinedMultiDict([request.files, request.form])
        _refuse_repeated(parts, schema)
        return dict(schema.load(MultiDictProxy(parts, schema)))
    # Files are streamed to disk; JSON is held in memory, so that less of it is taken.
    request.max_content_length = min(request.max_content_length or JSON_BYTES, JSON_BYTES)
    return dict(schema.load(_json()))


def _refuse_repeated(parts: CombinedMultiDict[str, Any], schema: Schema) -> None:
    # The schema would take the first and be silent about the others.
    single = [name for name, field in schema.fields.items() if not isinstance(field, fields.List)]
    repeated = {name: ["Give it once only."] for name in single if len(parts.getlist(name)) > 1}
    if repeated:
        raise ValidationError(repeated)


def _json() -> Any:
    try:
        return request.get_json()
    except BadRequest as error:
        raise WebError(
            400,
            "bad_json",
            "The body is not valid JSON.",
            remedy="Correct its syntax and send it again, encoded as UTF-8.",
        ) from error


_DESCRIPTION = """\
Find the images that look like a given one, and fill the collection that is searched.

Searches and jobs are accepted at once (202, with a Location) and done by workers. Asked for with
the parameter wait, they are answered as soon as they are finished. Every error has the same body.
"""
