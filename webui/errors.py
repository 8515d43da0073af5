"""One error body for everything that the site answers.

Whatever goes wrong, a refused request, an unknown ticket, a broker that is down or a bug, is
answered with ``{"error": {"code", "message", "remedy", "status"}}``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flask import Flask, Response, jsonify, make_response, render_template, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException

from workers.errors import (
    Conflict,
    Failed,
    InvalidRequest,
    NotFound,
    Rejected,
    TooLarge,
    Unavailable,
    WorkerError,
)

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5

# Read from the top: the first class that fits decides.
_STATUS_OF: tuple[tuple[type[WorkerError], int], ...] = (
    (InvalidRequest, 400),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Rejected, 422),
    (Failed, 502),
    (Unavailable, 503),
)

_HTTP_CODES: dict[int, tuple[str, str]] = {
    400: ("bad_request", "Compare the request with the API description at /api/v1/docs."),
    404: ("not_found", "Check the address; /api/v1/docs lists the ones that exist."),
    405: ("method_not_allowed", "Use a method that the Allow header names."),
    413: ("too_large", "Send less at once, or ingest from the command line."),
    415: ("unsupported_media_type", "Send JSON, or multipart/form-data for files."),
    422: ("invalid_request", "Correct the fields that the message names and send it again."),
    431: ("headers_too_large", "Send fewer or shorter headers."),
}

# Instead of what the framework says, which speaks of browsers and spelling.
_MESSAGES = {
    400: "The request cannot be understood.",
    404: "There is nothing at this address.",
    405: "This address does not take a request of this method.",
}


class WebError(Exception):
    """Raised when the site itself refuses a request, before any worker hears of it."""

    def __init__(self, status: int, code: str, message: str, *, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.answer = ErrorAnswer(code, message, remedy, status)


@dataclass(frozen=True)
class ErrorAnswer:
    """The one error body."""

    code: str
    message: str
    remedy: str
    status: int

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the body as it is sent."""
        return {"error": asdict(self)}


def register(app: Flask) -> None:
    """Answer every error of ``app`` with the one body."""
    app.register_error_handler(WebError, lambda error: respond(error.answer))
    app.register_error_handler(WorkerError, _of_worker_error)
    app.register_error_handler(ValidationError, lambda error: respond(_invalid(error.messages)))
    app.register_error_handler(HTTPException, _of_http_exception)
    app.register_error_handler(Exception, _of_surprise)


def respond(answer: ErrorAnswer) -> Response:
    """Return ``answer`` as a page to a browser that asked for a page, and as JSON otherwise."""
    body = _page(answer) if _wants_page() else jsonify(answer.to_dict())
    response = make_response(body, answer.status)
    if answer.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _wants_page() -> bool:
    accepted = request.accept_mimetypes
    return not request.path.startswith("/api/") and accepted.accept_html and not _only_any()


def _only_any() -> bool:
    # curl and most libraries send "*/*" or nothing: they want the body that programs read.
    return request.headers.get("Accept", "*/*").strip() == "*/*"


def _page(answer: ErrorAnswer) -> str:
    return render_template("error.html", problem=answer)


def _of_worker_error(error: WorkerError) -> Response:
    status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), 500)
    if status == 500:
        return _of_surprise(error)
    remedy = error.remedy or of_status(status, "").remedy
    return respond(ErrorAnswer(error.code, error.message, remedy, status))


def _of_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400 and error.response is not None:
        return make_response(error.response)  # a redirect travels as an exception, too
    fields = getattr(error, "data", {}).get("messages") if status == 422 else None
    answer = _invalid(fields) if fields else of_status(status, _message(error))
    response = respond(answer)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers.setdefault(name, value)
    return response


def of_status(status: int, message: str) -> ErrorAnswer:
    """Return the answer for an HTTP status that says all there is to say."""
    code, remedy = _HTTP_CODES.get(status, (f"http_{status}", "See /api/v1/docs."))
    return ErrorAnswer(code, message, remedy, status)


def over_limit(limit_bytes: int | None) -> str:
    """Return the message for a request that is too large."""
    return f"The request is over the limit of {limit_bytes:,} bytes, or has too many parts."


def _message(error: HTTPException) -> str:
    if error.code == 413:
        return over_limit(request.max_content_length)
    own = _MESSAGES.get(error.code or 500)
    return own or error.description or "The request cannot be answered."


def _of_surprise(error: Exception) -> Response:
    log.error(
        "%s %s failed; it is answered with 500.", request.method, request.path, exc_info=error
    )
    return respond(
        ErrorAnswer(
            "internal",
            "The server met an error of its own.",
            "Try again; if it happens again, the server's log says what went wrong.",
            500,
        )
    )


def _invalid(messages: Any) -> ErrorAnswer:
    return of_status(422, " ".join(_sentences(messages)))


def _sentences(messages: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Flatten marshmallow's nested messages; the outermost keys name a place in the request."""
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            yield from _sentences(inner, (*path, str(key)))
    elif isinstance(messages, list):
        for inner in messages:
            yield from _sentences(inner, path)
    else:
        named = [part for part in path if part not in ("query", "_schema")]
        yield f"{'.'.join(named)}: {messages}" if named else str(messages)
