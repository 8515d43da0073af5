"""Fields that several shapes of the API have."""

from __future__ import annotations

from typing import Any

from flask import url_for
from marshmallow import ValidationError, fields

from workers.client.checks import moment


def described(text: str) -> dict[str, str]:
    """Return field metadata that shows ``text`` in the OpenAPI document."""
    return {"description": text}


def unix_time(text: str) -> fields.Float:
    """Return a field of an answer that is a time, or null while there is none."""
    return fields.Float(metadata=described(f"{text} Unix time in seconds."), allow_none=True)


def number(text: str) -> fields.Integer:
    """Return a field that is a whole number."""
    return fields.Integer(metadata=described(text))


def asked(kind: type[fields.Field[Any]], name: str, text: str) -> fields.Field[Any]:
    """Return a field of an answer that repeats an option of the question."""
    return kind(attribute=f"options.{name}", allow_none=True, metadata=described(text))


class ImageLink(fields.String):
    """Path of one of an image's files; written from its ``id``."""

    def __init__(self, endpoint: str, text: str) -> None:
        super().__init__(attribute="id", dump_only=True, metadata=described(text))
        self._endpoint = endpoint

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str:
        return url_for(self._endpoint, image_id=value)


class Moment(fields.Field[float]):
    """A time that is given as ISO 8601 or as Unix time; read as Unix time in seconds."""

    def __init__(self, text: str) -> None:
        either = [{"type": "string"}, {"type": "number"}, {"type": "null"}]
        description = f"{text} ISO 8601, UTC unless it says otherwise, or Unix time in seconds."
        super().__init__(allow_none=True, metadata={"anyOf": either, "description": description})

    def _deserialize(self, value: Any, attr: str | None, *_: Any, **__: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValidationError("Not a time.")
        return moment(attr or "time", value)
