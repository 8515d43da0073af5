"""Connections and transactions over SQLite or PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Row,
    Table,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from workers.errors import SettingsError, Unavailable
from workers.ledger import tables

BUSY_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 10

AnyRow = Row[*tuple[Any, ...]]


def short_key(text: str) -> str:
    """Return 32 hex digits that stand for a text of any length in a unique index."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Database:
    """A pool of connections to the ledger's database, with its tables in place.

    Args:
        url: SQLAlchemy URL, ``sqlite:///path`` or ``postgresql+psycopg://...``.

    Raises:
        SettingsError: The URL is malformed or its driver is not installed.
        Unavailable: The database cannot be reached, or is of a later version.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._shown_url = self._engine.url.render_as_string(hide_password=True)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @property
    def dialect(self) -> str:
        """Name of the SQL dialect, ``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction; all its statements see one and the same state.

        Raises:
            Unavailable: The database does not answer.
        """
        with self._translated(), self._engine.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that commits when the block ends and rolls back when it raises.

        Raises:
            Unavailable: The database does not answer.
        """
        with self._translated(), self._engine.connect() as connection:
            if self.dialect == "sqlite":
                # Taking the write lock at once waits for its turn; upgrading a read later
                # fails at once with "database is locked" when somebody wrote in between.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def insert_new(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Return an insert into a table that passes over the rows it already has."""
        if self.dialect == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
        return postgresql.insert(table).on_conflict_do_nothing()

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._failed(getattr(error, "orig", None) or error) from error

    def _failed(self, cause: BaseException) -> Unavailable:
        return Unavailable(
            f"The ledger at {self._shown_url} failed: {cause}.",
            remedy="Check that the database runs, that LOOKALIKE_LEDGER_URL is right, "
            "and that its disk is not full.",
        )

    def _prepare(self) -> None:
        if self.dialect == "sqlite":
            self._turn_to_wal()
        with self.write() as connection:
            if self.dialect == "postgresql":
                # Two processes may start at once on an empty database.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7466)")
            tables.metadata.create_all(connection)
            version = connection.scalar(select(tables.schema.c.version))
            if version is None:
                connection.execute(insert(tables.schema).values(version=tables.SCHEMA_VERSION))
            elif version > tables.SCHEMA_VERSION:
                raise Unavailable(
                    f"The ledger at {self._shown_url} was made by a later version "
                    f"(schema {version}, this one knows {tables.SCHEMA_VERSION}).",
                    remedy="Upgrade lookalike on this machine.",
                )
            elif version < tables.SCHEMA_VERSION:
                _upgrade(connection, version)

    def _turn_to_wal(self) -> None:
        """Let reads go on beside a write; a file that was turned stays so."""
        path = Path(str(self._engine.url.database))
        # Of processes that turn a new file at one moment SQLite refuses some at once, however
        # long they would wait.
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=BUSY_TIMEOUT_S)
        try:
            with lock, self._translated(), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        except OSError as error:
            raise self._failed(error) from error


def _upgrade(connection: Connection, version: int) -> None:
    """Give the tables of an earlier version the columns that came since."""
    for later in range(version + 1, tables.SCHEMA_VERSION + 1):
        for column in tables.ADDED_COLUMNS[later]:
            kind = column.type.compile(connection.dialect)
            connection.exec_driver_sql(
                f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"
            )
    connection.execute(update(tables.schema).values(version=tables.SCHEMA_VERSION))


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed)
        return _postgresql_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise SettingsError(
            f"LOOKALIKE_LEDGER_URL cannot be used: {error}.",
            remedy="Use sqlite:///PATH, or postgresql+psycopg://USER@HOST/NAME with "
            "`pip install 'lookalike[postgresql]'`.",
        ) from error


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name != "postgresql":
        raise ValueError(f"{engine.dialect.name} is not a database that lookalike knows")

    @event.listens_for(engine, "do_connect")
    def _limit(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
        options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)

    return engine


def _sqlite_engine(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise ValueError("a ledger in memory would be lost with the process")
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"The folder of the ledger {path} cannot be made: {error.strerror}.",
            remedy="Check LOOKALIKE_DATA_DIR and LOOKALIKE_LEDGER_URL.",
        ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: write() does, explicitly.
        connection.isolation_level = None
        # In WAL mode NORMAL survives a crash of the process whole. A power cut may take the last
        # moments of the ledger back; their messages are then worked off again, to the same effect.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine
