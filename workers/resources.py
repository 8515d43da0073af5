"""What one process holds open: network, shards, ledger, decoders. Each is opened on first use.

Nothing is opened at import, and nothing before a worker process has its final shape, so there is
one copy of the network in each process and none crosses a fork.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from typing import Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.engine import Embedding, Engine
from models.engines import open_engine
from models.errors import ModelError
from workers.bundles import find_bundle
from workers.decoders import Decoders
from workers.errors import Unavailable
from workers.fetch import Fetcher
from workers.files import Files
from workers.ledger import Ledger
from workers.robots import Robots
from workers.settings import Settings
from workers.shards import Shards

T = TypeVar("T")


class Resources:
    """Lazily opened parts, shared by the threads of a process; a context manager.

    Args:
        settings: Everything that can be set.
        decoders: Decoding children to start when the first image comes.
        niceness: How far this process's decoders make way for others.
    """

    def __init__(self, settings: Settings, *, decoders: int = 1, niceness: int = 0) -> None:
        self.settings = settings
        self.files = Files(settings.data_dir)
        self._decoder_processes = decoders
        self._decoders_name = "decoders"
        self._niceness = niceness
        self._parts: dict[str, Any] = {}
        self._lock = threading.RLock()

    @property
    def ledger(self) -> Ledger:
        """Jobs, items and searches."""
        return self._once("ledger", lambda: Ledger(self.settings.database_url))

    @property
    def bundle(self) -> Bundle:
        """The model bundle; a default one is assembled the first time it is asked for."""
        return self._once("bundle", self._ensure_bundle)

    @property
    def engine(self) -> Engine:
        """The network, ready to run."""
        return self._once("engine", self._open_engine)

    def embed(self, pixels: NDArray[np.uint8]) -> Embedding:
        """Run the network, see :meth:`models.engine.Engine.embed`.

        Raises:
            Unavailable: It failed, or gave numbers that are not finite.
        """
        try:
            return self.engine.embed(pixels)
        except ModelError as error:
            raise Unavailable(f"The network failed: {error}", code="network") from error

    @property
    def shards(self) -> Shards:
        """The images."""
        root = self.settings.data_dir / "shards"
        return self._once("shards", lambda: Shards(root, self.bundle, count=self.settings.shards))

    @property
    def fetcher(self) -> Fetcher:
        """The way to the web."""
        return self._once("fetcher", lambda: Fetcher(self.settings))

    @property
    def robots(self) -> Robots:
        """What sites ask of robots."""
        return self._once("robots", lambda: Robots(self.fetcher, self.settings))

    @property
    def decoders(self) -> Decoders:
        """The decoding children."""
        return self._once(self._decoders_name, self._start_decoders)

    def with_own_decoders(self, name: str, *, processes: int) -> Resources:
        """Return resources that share all parts but the decoding children.

        Args:
            name: Tells these children from others.
            processes: How many there are.
        """
        twin = copy(self)
        twin._decoders_name = f"{name} decoders"
        twin._decoder_processes = processes
        return twin

    def warm_up(self) -> None:
        """Open what a search needs and use it once, so that the first one is as quick as others.

        Raises:
            WorkerError: A part cannot be opened.
        """
        self.shards.images()
        self.decoders.start()
        side_px = self.bundle.preprocess.input_px
        self.embed(np.zeros((1, side_px, side_px, 3), np.uint8))

    def close(self) -> None:
        """Close what was opened, the latest first. May be called again."""
        with self._lock:
            while self._parts:
                _, part = self._parts.popitem()
                close = getattr(part, "close", None)
                if close is not None:
                    close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._parts:
                self._parts[name] = make()
            return cast("T", self._parts[name])

    def _ensure_bundle(self) -> Bundle:
        try:
            return find_bundle(self.settings)
        except ModelError as error:
            raise Unavailable(
                f"The model bundle cannot be used: {error}", code="bundle"
            ) from error

    def _open_engine(self) -> Engine:
        return open_engine(
            self.bundle,
            engine=self.settings.engine,
            threads=self.settings.engine_threads,
            device=self.settings.engine_device,
        )

    def _start_decoders(self) -> Decoders:
        return Decoders(
            self.settings,
            self.bundle.preprocess,
            self.files,
            processes=self._decoder_processes,
            niceness=self._niceness,
        )
