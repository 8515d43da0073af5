"""The written reference names everything that the API has."""

from __future__ import annotations

import re
from pathlib import Path

import webui
import workers.errors
from tests.webui.test_api_contract import document, operations
from tests.webui.world import World
from webui.schemas import MAX_WAIT_S
from webui.uploads import MAX_FILES
from workers.errors import SettingsError, WorkerError
from workers.records import ItemState, JobKind, JobState, SearchState

ROOT = Path(webui.__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()


def test_every_route_is_in_the_page_and_every_route_of_the_page_exists(idle: World) -> None:
    named = {
        (method.lower(), path) for method, path in re.findall(r"`([A-Z]+) (/api/v1/[^`]+)`", PAGE)
    }
    assert named == operations(document(idle))


def test_every_parameter_of_a_query_is_in_the_page(idle: World) -> None:
    spec = document(idle)
    for method, path in operations(spec):
        for parameter in spec["paths"][path][method].get("parameters", []):
            assert re.search(rf"\b{parameter['name']}\b", PAGE), (path, parameter["name"])


def test_every_field_of_a_body_is_in_the_page(idle: World) -> None:
    schemas = document(idle)["components"]["schemas"]
    for name in ("SearchJson", "SearchForm", "JobJson", "JobForm"):
        for field in schemas[name]["properties"]:
            assert re.search(rf"\b{field}\b", PAGE), (name, field)


def test_every_state_and_kind_is_in_the_page() -> None:
    for state in (*SearchState, *JobState, *ItemState):
        assert f"`{state}`" in PAGE, state
    for kind in JobKind:
        assert kind is JobKind.UPLOAD or f'"kind": "{kind}"' in PAGE, kind


def test_every_code_of_the_site_and_every_class_of_the_workers_is_in_the_page() -> None:
    sources = "".join(path.read_text() for path in Path(webui.__file__).parent.rglob("*.py"))
    own = re.findall(r'WebError\(\s*\d+,\s*"(\w+)"', sources)
    by_status = re.findall(r'^    \d+: \("(\w+)"', sources, re.MULTILINE)
    assert len(own) >= 4
    assert len(by_status) >= 6
    of_workers = [
        kind.code
        for kind in vars(workers.errors).values()
        if isinstance(kind, type) and issubclass(kind, WorkerError) and kind is not SettingsError
    ]
    for code in {*own, *by_status, *of_workers, "internal"}:
        assert f"`{code}`" in PAGE, code


def test_the_limits_in_the_page_are_those_of_the_code() -> None:
    assert f"({MAX_WAIT_S} at most)" in PAGE
    assert f"{MAX_FILES} files" in PAGE
