"""Real services for tests: started on first use, shared by the session, ended with it.

A service that is not installed skips the test on a laptop and fails it where CI=true.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from models.caffe_runtime import import_caffe
from models.errors import EngineError
from ops.errors import ServiceMissingError
from ops.services import PostgreSQL, RabbitMQ, postgresql_server, rabbitmq_server

# Fixtures that decide which group a test runs in; see conftest.py.
SERVICE_FIXTURES = {"rabbitmq", "postgres"}
BROWSER_FIXTURES = {"chromium_path"}


def missing(reason: str) -> NoReturn:
    """Skip the running test for want of a service, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI must have it: see .ci/run)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A broker of our own: `.url`, and `.stop()`, `.kill()`, `.start()` for outages.

    Whoever stops it starts it again. Queues are shared by the session, so use names of your own.
    """
    try:
        with rabbitmq_server(tmp_path_factory.mktemp("rabbitmq")) as broker:
            yield broker
    except ServiceMissingError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """A PostgreSQL cluster of our own: `.url`, and `.new_database(name)` for an empty one."""
    # Not under pytest's temporary directory, which only the user running pytest may enter.
    with tempfile.TemporaryDirectory(prefix="lookalike-postgresql-") as folder:
        try:
            with postgresql_server(Path(folder)) as cluster:
                yield cluster
        except ServiceMissingError as error:
            missing(str(error))


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The path of an installed Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing("chromium is not installed; run: apt-get install --no-install-recommends chromium")
    return str(path)


@pytest.fixture(scope="session")
def pycaffe() -> ModuleType:
    """Real Caffe."""
    try:
        return import_caffe()
    except EngineError as error:
        missing(str(error))
