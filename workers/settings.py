"""The one table of settings.

Every setting is a field of :class:`Settings` with its default and its help beside it. The command
line, the documentation and the tests read the same table; nothing else in the project reads the
environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import platformdirs

from models.engines import DEVICES, ENGINES
from workers.errors import SettingsError

PREFIX = "LOOKALIKE_"
EMBEDDED_BROKER = "memory://"
MAX_PORT = 65_535

_BROKER_SCHEMES = (EMBEDDED_BROKER, "amqp://", "amqps://", "pyamqp://")


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(part).expanduser() for part in text.split(os.pathsep) if part)


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _broker(text: str) -> str:
    if not text.startswith(_BROKER_SCHEMES):
        raise ValueError(f"must begin with one of {', '.join(_BROKER_SCHEMES)}")
    return text


def _flag(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.strip().lower() not in values:
        raise ValueError(f"must be one of {', '.join(values)}")
    return values[text.strip().lower()]


def _path(text: str) -> Path:
    if not text:
        raise ValueError("must name a folder")
    return Path(text).expanduser().absolute()


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("must be at least 1")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_PORT:
        raise ValueError(f"must be from 0 to {MAX_PORT}")
    return value


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError("must be a number, 0 or more")
    return value


def _above_zero(text: str) -> float:
    value = _amount(text)
    if not value:
        raise ValueError("must be above 0")
    return value


def _header(text: str) -> str:
    if not (text.isascii() and text.isprintable() and text.partition("/")[0].strip()):
        raise ValueError("must be a name in plain ASCII, such as lookalike/1.0")
    return text


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return parse


def _setting(default: Any, parse: Callable[[str], Any], help_text: str) -> Any:
    metadata = {"parse": parse, "help": help_text}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _data_dir() -> Path:
    return platformdirs.user_data_path("lookalike")


def _bundles_dir() -> Path:
    return platformdirs.user_data_path("lookalike") / "bundles"


def _cache_dir() -> Path:
    return platformdirs.user_cache_path("lookalike")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set, read once at start and passed on as an argument."""

    data_dir: Path = _setting(
        _data_dir, _path, "Where the collection lives: shards, thumbnails, ledger, uploads."
    )
    bundles_dir: Path = _setting(
        _bundles_dir, _path, "Where imported and trained model bundles are found by name."
    )
    cache_dir: Path = _setting(
        _cache_dir, _path, "What can be made again: assembled and converted model bundles."
    )
    broker_url: str = _setting(
        EMBEDDED_BROKER,
        _broker,
        "Message broker. The default runs the workers inside the one process; "
        "`amqp://user:password@host:5672//` uses RabbitMQ and separate workers.",
    )
    ledger_url: str = _setting(
        "",
        str,
        "Database of jobs, items and results, as an SQLAlchemy URL. "
        "Empty means SQLite inside `data_dir`.",
    )
    bundle: str = _setting(
        "lite0-128",
        str,
        "Model bundle: a default one or one in `bundles_dir` by name, or the path of a directory.",
    )
    engine: str = _setting(
        ENGINES[0],
        _one_of(ENGINES),
        "What runs the network: `onnx`, or `caffe` where `make caffe` was run.",
    )
    engine_device: str = _setting(
        DEVICES[0],
        _one_of(DEVICES),
        "Where it runs: `cpu`, or `gpu` with a Caffe that was built for one.",
    )
    shards: int = _setting(1, _positive, "LMDB environments that the images are spread over.")
    engine_threads: int = _setting(
        os.cpu_count,
        _positive,
        "Threads that the network uses in a process; the bulk workers share them.",
    )
    decoders: int = _setting(
        os.cpu_count,
        _positive,
        "Child processes that decode images for bulk work; its workers share them.",
    )
    host: str = _setting("127.0.0.1", str, "Address that the site listens on.")
    port: int = _setting(8080, _port, "Port that the site listens on; 0 takes a free one.")
    web_threads: int = _setting(
        32, _positive, "Threads of the site; a long poll holds one while it waits."
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        _words,
        "Host names that the site answers to, separated by commas. "
        "Empty means this machine's loopback names and `host`.",
    )
    folder_roots: tuple[Path, ...] = _setting(
        (),
        _paths,
        "Folders that the site may be asked to ingest from, separated like PATH. "
        "Empty means none; the command line is not limited.",
    )
    allow_private_addresses: bool = _setting(
        False, _flag, "Whether URLs may lead to private and loopback addresses, as on an intranet."
    )
    user_agent: str = _setting(
        "lookalike/0.1 (+https://pypi.org/project/lookalike)",
        _header,
        "How the fetcher and crawler name themselves to sites, and in robots.txt.",
    )
    fetch_timeout_s: float = _setting(
        20.0, _above_zero, "Longest time for one URL, redirects included."
    )
    crawl_delay_s: float = _setting(
        1.0, _amount, "Pause between two pages of one site; a longer one in robots.txt wins."
    )
    crawl_max_pages: int = _setting(1_000, _positive, "Most pages that one crawl may ask for.")
    crawl_max_depth: int = _setting(
        10, _count, "Most links from the seed that a crawl may follow."
    )
    max_upload_bytes: int = _setting(256 << 20, _positive, "Largest request that the site takes.")
    max_image_bytes: int = _setting(64 << 20, _positive, "Largest image file.")
    max_image_pixels: int = _setting(
        120_000_000, _positive, "Most pixels of an image; larger ones are refused undecoded."
    )
    max_job_items: int = _setting(
        100_000,
        _positive,
        "Most URLs or files in one request; folders and crawls are not limited.",
    )
    decode_timeout_s: float = _setting(
        20.0, _above_zero, "Longest time to decode one image before its decoder is killed."
    )
    decode_memory_bytes: int = _setting(
        4 << 30, _positive, "Address space of a decoder; an image that needs more is refused."
    )
    max_k: int = _setting(10_000, _positive, "Most hits that one search may ask for.")
    max_queued_searches: int = _setting(
        1_000, _positive, "Searches that may wait at once; more are turned away with 503."
    )
    probe_groups: int = _setting(
        2, _positive, "Groups of neighbouring buckets that a search fans out over, per shard."
    )
    search_timeout_s: float = _setting(
        10.0,
        _above_zero,
        "Longest wait for the probes; shards that miss it make a result partial.",
    )
    result_hours: float = _setting(24.0, _amount, "How long a search result is kept for polling.")
    batch_images: int = _setting(64, _positive, "Images in one bulk message, batch and commit.")
    live_batch_images: int = _setting(
        8, _positive, "The same for uploads, which go ahead of bulk."
    )
    window_batches: int = _setting(
        6, _positive, "Batches of one job that may be queued at once; the rest wait in the ledger."
    )
    lease_s: float = _setting(
        300.0, _above_zero, "After this long without an outcome a queued item is sent again."
    )
    max_attempts: int = _setting(
        3, _positive, "Times that an item may take its worker down before it is given up."
    )
    sweep_interval_s: float = _setting(
        10.0,
        _above_zero,
        "Pause between two looks for work that was lost and results that expired.",
    )
    store_upkeep: bool = _setting(
        True,
        _flag,
        "Whether bulk workers compact the shards and retrain their buckets in the background; "
        "`lookalike store` does both on demand.",
    )

    @property
    def embedded(self) -> bool:
        """Whether broker and workers live inside the process that uses them."""
        return self.broker_url.startswith("memory:")

    @property
    def database_url(self) -> str:
        """The ledger's URL with its default filled in."""
        return self.ledger_url or f"sqlite:///{self.data_dir / 'ledger.sqlite'}"

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
        """Read the settings once.

        Args:
            environ: Where the ``LOOKALIKE_*`` variables are looked up.
            **overrides: Values that win over the environment; ``None`` means not given.

        Raises:
            SettingsError: A variable is unknown or its value cannot be used.
        """
        known = {setting.env: setting for setting in SETTINGS}
        unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
        if unknown:
            raise SettingsError(
                f"{', '.join(unknown)} is not a setting.",
                remedy="See docs/settings.md for the names.",
            )
        values = {
            known[name].name: known[name].read(environ[name]) for name in environ if name in known
        }
        given = {name: value for name, value in overrides.items() if value is not None}
        return replace(cls(**values), **given)


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        name: Field of :class:`Settings`.
        env: Environment variable.
        default: Default as a person would write it.
        help: One or two sentences.
    """

    name: str
    env: str
    default: str
    help: str
    parse: Callable[[str], Any]

    @classmethod
    def of(cls, entry: Field[Any]) -> Setting:
        """Return the row that describes a field of :class:`Settings`."""
        return cls(
            entry.name,
            PREFIX + entry.name.upper(),
            _shown_default(entry),
            entry.metadata["help"],
            entry.metadata["parse"],
        )

    def read(self, text: str) -> Any:
        """Return the value that ``text`` means.

        Raises:
            SettingsError: It means none.
        """
        try:
            return self.parse(text)
        except ValueError as error:
            raise SettingsError(
                f"{self.env}={text!r} cannot be used: {error}.",
                remedy=f"{self.help} Default: {self.default or 'empty'}.",
            ) from error


def _shown_default(entry: Field[Any]) -> str:
    described = {
        "data_dir": "`lookalike` in the XDG data folder",
        "bundles_dir": "`lookalike/bundles` in the XDG data folder",
        "cache_dir": "`lookalike` in the XDG cache folder",
        "engine_threads": "number of cores",
        "decoders": "number of cores",
    }
    if entry.name in described:
        return described[entry.name]
    if isinstance(entry.default, tuple):
        return ""
    return str(entry.default)


SETTINGS: tuple[Setting, ...] = tuple(Setting.of(entry) for entry in fields(Settings))
