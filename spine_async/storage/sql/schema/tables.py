"""The tables as SQLAlchemy Core metadata.

A visit and the events that report it are one row (`storage/derived_events.py`). JSON documents are stored as text,
unchanged from the encoder, because `jsonb` rejects and rewrites some valid JSON values.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP

VERSION = 2
"""The schema version that this library requires."""

metadata = MetaData()


def _run_foreign_key() -> ForeignKeyConstraint:
    # PostgreSQL would check the constraint for each row; it uses triggers instead (`postgres_types.py`).
    return ForeignKeyConstraint(["run"], ["core_workflow_runs.id"], ondelete="CASCADE").ddl_if(dialect="sqlite")


_Timestamp = TIMESTAMP(timezone=True).with_variant(Text(), "sqlite")  # SQLite: ISO 8601, UTC, microseconds, Z
_Key = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER PRIMARY KEY is an alias of SQLite's rowid
_Float = Float(53)
_Lease = TIMESTAMP(timezone=True).with_variant(Float(53), "sqlite")  # SQLite: boot clock in seconds, see `lease_boot`
# The collation C compares bytes. So a path prefix is an index range, independent of the collation of the database.
_Path = Text(collation="C").with_variant(Text(), "sqlite")

UNDER_WAY = text("status IN ('running', 'waiting')")
"""Condition for runs that have not ended. SQLite uses the partial index only for exactly this text."""

schema_version = Table("core_workflow_schema", metadata, Column("version", Integer, nullable=False))

runs = Table(
    "core_workflow_runs",
    metadata,
    Column("id", _Key, Identity(always=False), primary_key=True),
    Column("created_at", _Timestamp, nullable=False),
    Column("started_at", _Timestamp, nullable=False),
    Column("updated_at", _Timestamp, nullable=False),
    Column("completed_at", _Timestamp),
    Column("lease_until", _Lease),
    Column("epoch", Integer, nullable=False),
    Column("next_seq", Integer, nullable=False),
    Column("claims_since_progress", Integer, nullable=False),
    Column("total_steps", Integer, nullable=False),
    Column("workflow_version", Integer, nullable=False),
    Column("run_id", _Path, nullable=False, unique=True),
    Column("workflow_name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("owner", Text),
    Column("lease_boot", Text),
    Column("commit_id", Text),
    Column("fingerprint", Text, nullable=False),
    Column("params_hash", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("partition", Text),
    Column("initial_outputs", Text, nullable=False),
    Column("initial_quality", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("start_from", Text),
    Column("error_step", Text),
    Column("error", Text),
    Column("error_category", Text),
    Column("stop_reason", Text),
    Column("stop_requested", Text),
    Index("core_workflow_runs_age", "created_at", "id"),
    # A partial index stays small, so a search for runs without an owner does not read the ended runs.
    Index("core_workflow_runs_under_way", "created_at", "id", postgresql_where=UNDER_WAY, sqlite_where=UNDER_WAY),
    sqlite_autoincrement=True,  # keys are never reused, so the fence rejects a late commit to a deleted run
    postgresql_with={"fillfactor": 70},  # free space for HOT updates: each commit updates the row of its run
)

steps = Table(
    "core_workflow_steps",
    metadata,
    Column("run", _Key, nullable=False),
    Column("started_at", _Timestamp, nullable=False),
    Column("completed_at", _Timestamp, nullable=False),
    Column("duration_ms", _Float, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("started_seq", Integer),
    Column("item_seq", Integer),
    Column("epoch", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("output_size", Integer, nullable=False),
    Column("item_index", Integer),
    Column("ends_item", Boolean, nullable=False),
    Column("emits", Boolean, nullable=False),
    Column("path", _Path, nullable=False),
    Column("scope", _Path, nullable=False),
    Column("step_name", Text, nullable=False),
    Column("step_type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt_id", Text, nullable=False),
    Column("error", Text),
    Column("error_category", Text),
    Column("opening", Text),
    Column("updates", Text),
    Column("quality", Text),
    Column("output", Text),
    PrimaryKeyConstraint("run", "seq"),
    UniqueConstraint("run", "path"),
    _run_foreign_key(),
)

event_log = Table(
    "core_workflow_event_log",
    metadata,
    Column("run", _Key, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("timestamp", _Timestamp, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("step_name", Text),
    Column("path", Text),
    Column("metadata", Text, nullable=False),
    PrimaryKeyConstraint("run", "seq"),
    _run_foreign_key(),
    sqlite_with_rowid=False,
)
