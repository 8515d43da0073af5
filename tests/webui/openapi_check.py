"""Whether a real answer is one that the OpenAPI document describes.

Stricter than JSON Schema: an object has all the properties that are described, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from werkzeug.test import TestResponse

TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def check(spec: Mapping[str, Any], method: str, path: str, response: TestResponse) -> None:
    """Fail unless ``response`` is described for the operation."""
    described = spec["paths"][path][method]["responses"]
    status = str(response.status_code)
    assert status in described, f"{method} {path} answered {status}, which is not described"
    content = _resolved(spec, described[status]).get("content")
    if content is None:
        assert response.data == b""
        return
    kinds = [kind for kind in content if _covers(kind, response.mimetype)]
    assert kinds, f"{response.mimetype} is not described for {method} {path} {status}"
    if response.is_json:
        faults = list(_faults(spec, content[kinds[0]]["schema"], response.json, "body"))
        assert not faults, faults


def _covers(kind: str, mimetype: str) -> bool:
    return kind == mimetype or (kind.endswith("/*") and mimetype.startswith(kind[:-1]))


def _resolved(spec: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        target: Any = spec
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def _faults(
    spec: Mapping[str, Any], schema: Mapping[str, Any], value: Any, at: str
) -> Iterator[str]:
    schema = _resolved(spec, schema)
    if "anyOf" in schema:
        if all(list(_faults(spec, each, value, at)) for each in schema["anyOf"]):
            yield f"{at} fits none of {schema['anyOf']}"
        return
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    fitting = tuple(TYPES[kind] for kind in kinds)
    if not _is(value, fitting):
        yield f"{at} is {value!r}, not {kinds}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at} is {value!r}, not one of {schema['enum']}"
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _faults(spec, schema["items"], each, f"{at}[{number}]")
    elif isinstance(value, dict) and "properties" in schema:
        yield from _of_object(spec, schema["properties"], value, at)


def _is(value: Any, fitting: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):  # which Python counts among the integers
        return bool in fitting
    return any(isinstance(value, each) for each in fitting)


def _of_object(
    spec: Mapping[str, Any], properties: Mapping[str, Any], value: Mapping[str, Any], at: str
) -> Iterator[str]:
    for name in properties.keys() ^ value.keys():
        yield f"{at}.{name} is not both described and there"
    for name in properties.keys() & value.keys():
        yield from _faults(spec, properties[name], value[name], f"{at}.{name}")
