"""The tables. Times are unix seconds; ``*_key`` columns are digests that carry uniqueness."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

SCHEMA_VERSION = 2
"""Raised by one whenever ``ADDED_COLUMNS`` gets another entry."""

metadata = MetaData()


class Shown(TypeDecorator[str]):
    """Text of other people's making: what a database cannot hold is replaced by a mark."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Replace null characters, which PostgreSQL refuses, and halves of surrogate pairs."""
        if value is None:
            return None
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


# SQLite hands out row ids by itself only for a plain INTEGER primary key.
_serial = BigInteger().with_variant(Integer(), "sqlite")

schema = Table("lookalike_schema", metadata, Column("version", Integer, nullable=False))

jobs = Table(
    "jobs",
    metadata,
    Column("number", _serial, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("label", Shown, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("live", Boolean, nullable=False),
    Column("params", JSON, nullable=False),
    Column("submitted", BigInteger, nullable=False),
    Column("listing_done", Boolean, nullable=False),
    # When the listing last moved; a listing that stands still was lost and is sent again.
    Column("listing_at", Float, nullable=False),
    Column("cancel", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("error", JSON),
    # What keeps a running job from getting on, such as a full disk; gone when it does.
    Column("trouble", JSON),
    # Labels that its images get; NULL in jobs of before there were any.
    Column("labels", JSON),
)

items = Table(
    "items",
    metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("ref", Shown, nullable=False),
    Column("ref_key", String(32), nullable=False),
    Column("source", Shown, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    # NULL while the item waits in the ledger for its turn in the queue.
    Column("dispatched_at", Float),
    Column("finished_at", Float),
    Column("image_id", String(32)),
    Column("problem", JSON),
    UniqueConstraint("job_id", "ref_key"),
    Index("items_by_state", "job_id", "state", "dispatched_at"),
)

pages = Table(
    "pages",
    metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("url", Shown, nullable=False),
    Column("url_key", String(32), nullable=False),
    Column("depth", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("problem", JSON),
    UniqueConstraint("job_id", "url_key"),
    Index("pages_by_state", "job_id", "state"),
)

searches = Table(
    "searches",
    metadata,
    Column("number", _serial, primary_key=True, autoincrement=True),
    Column("ticket", String(32), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("query", JSON, nullable=False),
    Column("ref", Shown, nullable=False),
    Column("k", Integer, nullable=False),
    Column("effort", Integer, nullable=False),
    # What else was asked; NULL in searches of before there was anything else.
    Column("options", JSON),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("expires_at", Float, nullable=False),
    Column("result", LargeBinary),
    Column("error", JSON),
    Index("searches_by_state", "state", "number"),
)

ADDED_COLUMNS: dict[int, tuple[Column[Any], ...]] = {2: (jobs.c.labels, searches.c.options)}
"""What each version of the schema added to tables that were there; all of it may be NULL."""
