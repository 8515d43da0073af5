"""Sites on a real client with embedded workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.webui.world import World
from webui.app import create_app
from workers.client import Client
from workers.settings import Settings

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model bundle is assembled once for the session."""
    return tmp_path_factory.mktemp("cache")


@contextmanager
def _open(
    data_dir: Path, cache_dir: Path, *, serve: bool = False, **changes: object
) -> Iterator[World]:
    fields = {"decoders": 1, "engine_threads": 1, **changes}
    settings = Settings(data_dir=data_dir, cache_dir=cache_dir, **fields)  # type: ignore[arg-type]
    with Client.open(settings, serve=serve) as client:
        yield World(client, create_app(client, settings))


@pytest.fixture
def make_world(tmp_path: Path, cache_dir: Path) -> Iterator[MakeWorld]:
    """Opens a site on an empty collection; arguments replace settings; `serve` sweeps."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(_open(tmp_path / "data", cache_dir, **changes))


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A site on an empty collection."""
    return make_world()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[World]:
    """A site on an empty collection and no workers, for what is answered without them."""
    nobody = "amqp://127.0.0.1:1//"
    with _open(tmp_path_factory.mktemp("idle"), cache_dir, broker_url=nobody) as world:
        world.client.status()  # the store and the ledger are opened here, not in a test
        yield world
