"""The tables as SQLAlchemy Core metadata.

A visit and the events that report it are one row (`storage/derived_events.py`). JSON documents are stored as text,
unchanged from the encoder, because `jsonb` rejects and rewrites some valid JSON values.
"""

from __future__ import annotations

from sqlalchemy import (
    TIMESTAMP,
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
    TextClause,
    UniqueConstraint,
    false,
    text,
    true,
)

VERSION = 3
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

IS_READY = text("ready")
IS_READY_AGAIN = text("ready AND turn < 0")
"""Condition for ready runs that were claimed before."""
IS_READY_WITH_KEY = text("ready AND queue_key IS NOT NULL")
IS_HELD = text("owner IS NOT NULL")
IS_PARKED = text("owner IS NULL AND NOT ready AND status = 'waiting'")
IS_STOP_REQUESTED = text("stop_requested IS NOT NULL")
IS_DUE_LATER = text("owner IS NULL AND NOT ready AND due_at IS NOT NULL")
IS_DUE_LATER_BY_WALL = text("owner IS NULL AND NOT ready AND due_at IS NOT NULL AND due_boot IS NULL")
"""The same without the runs for which the boot clock counts. On SQLite all processes have the same boot clock."""
IS_DUE_LATER_IN_BOOT = text("owner IS NULL AND NOT ready AND due_boot IS NOT NULL")


def _partial(
    name: str, *columns: str, where: TextClause, sqlite_where: TextClause | None = None, unique: bool = False
) -> Index:
    """An index of the rows that meet a condition, so that its size is that of the work that is left.

    `migrations` adds the ending to the statement. For `postgresql_where`, SQLAlchemy would import that dialect, which
    takes a tenth of the start of a command that uses SQLite.
    """
    on_sqlite = where if sqlite_where is None else sqlite_where
    endings = {"postgresql": f"WHERE {where}", "sqlite": f"WHERE {on_sqlite}"}
    return Index(name, *columns, unique=unique, info={"endings": endings})


_CLAIM_ORDER = ("workflow_name", "queue", "priority", "turn", "workflow_version")
"""The version is the last column, so that the rows of runs with a higher version are not read."""

_KEY_ORDER = ("queue", "queue_key", "priority", "turn", "workflow_name", "workflow_version")

schema_version = Table("core_workflow_schema", metadata, Column("version", Integer, nullable=False))

runs = Table(
    "core_workflow_runs",
    metadata,
    Column("id", _Key, Identity(always=False), primary_key=True),
    Column("created_at", _Timestamp, nullable=False),
    Column("started_at", _Timestamp, nullable=False),
    Column("updated_at", _Timestamp, nullable=False),
    Column("completed_at", _Timestamp),
    Column("leased_until", _Lease),
    Column("due_at", _Timestamp),
    Column("expires_at", _Timestamp),
    Column("due_seconds", _Float),
    Column("turn", _Float),
    Column("epoch", Integer, nullable=False),
    Column("next_seq", Integer, nullable=False),
    Column("claims_since_progress", Integer, nullable=False),
    Column("total_steps", Integer, nullable=False),
    Column("workflow_version", Integer, nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("ready", Boolean, nullable=False, server_default=false()),
    Column("run_id", _Path, nullable=False, unique=True),
    Column("workflow_name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("owner", Text),
    Column("lease_boot", Text),
    Column("due_boot", Text),
    Column("queue", Text, nullable=False, server_default=""),
    Column("queue_key", Text),
    Column("started_by", Text, nullable=False, server_default="execute"),
    Column("parent_run_id", _Path),
    Column("forked_from", _Path),
    Column("commit_id", Text),
    Column("fingerprint", Text, nullable=False),
    Column("params_hash", Text, nullable=False),
    Column("request_hash", Text),
    Column("traceparent", Text),
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
    # For listings. Only the creation of a run and a change of its status write to them, but not the commit of a step.
    Index("core_workflow_runs_by_status", "status", "created_at", "id"),
    Index("core_workflow_runs_by_workflow", "workflow_name", "status", "created_at", "id"),
    _partial(
        "core_workflow_runs_children",
        *("parent_run_id", "created_at", "id"),
        where=text("parent_run_id IS NOT NULL"),
    ),
    # A partial index stays small, so that claims and sweeps do not read the ended runs.
    _partial("core_workflow_runs_ready", *_CLAIM_ORDER, where=IS_READY),
    _partial("core_workflow_runs_due", "due_at", where=IS_DUE_LATER, sqlite_where=IS_DUE_LATER_BY_WALL),
    _partial("core_workflow_runs_due_in_boot", "due_boot", "due_seconds", where=IS_DUE_LATER_IN_BOOT),
    # For the limits of queues, and for fairness between keys.
    _partial("core_workflow_runs_ready_again", *_CLAIM_ORDER, where=IS_READY_AGAIN),
    _partial("core_workflow_runs_ready_keys", *_KEY_ORDER, where=IS_READY_WITH_KEY),
    _partial("core_workflow_runs_ready_turns", "queue", "priority", "turn", where=IS_READY_WITH_KEY),
    _partial("core_workflow_runs_held", "owner", "queue", "queue_key", where=IS_HELD),
    # Only for counting. The commit of a step changes no column of it.
    _partial("core_workflow_runs_parked", "queue", where=IS_PARKED),
    # PostgreSQL reads the requested stops with the rows of the runs.
    Index("core_workflow_runs_stop_requested", "epoch", sqlite_where=IS_STOP_REQUESTED, info={"dialect": "sqlite"}),
    sqlite_autoincrement=True,  # keys are never reused, so a late commit to a deleted run passes no fence
    # Free space for HOT updates: each commit updates the row of its run.
    info={"endings": {"postgresql": "WITH (fillfactor = 70)"}},
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
    Column("records_events", Boolean, nullable=False),
    Column("path", _Path, nullable=False),
    Column("scope", _Path, nullable=False),
    Column("step_name", Text, nullable=False),
    Column("step_type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("commit_id", Text, nullable=False),
    Column("error", Text),
    Column("error_category", Text),
    Column("target", Text),
    Column("item_params", Text),
    Column("appends", Text),
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

inbox = Table(
    "core_workflow_inbox",
    metadata,
    Column("id", _Key, Identity(always=False), primary_key=True),
    Column("run", _Key, nullable=False),
    Column("received_at", _Timestamp, nullable=False),
    Column("taken", Boolean, nullable=False, server_default=false()),
    Column("unseen", Boolean, nullable=False, server_default=true()),
    Column("token", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("value", Text, nullable=False),
    UniqueConstraint("run", "token"),
    _partial(
        "core_workflow_inbox_keys", "run", "idempotency_key", where=text("idempotency_key IS NOT NULL"), unique=True
    ),
    _partial("core_workflow_inbox_open", "run", "id", where=text("NOT taken")),
    # What a sweep reads. A message stays `unseen` until a sweep finds that its run has no owner, or a step takes it.
    _partial("core_workflow_inbox_unseen", "run", where=text("unseen")),
    _run_foreign_key(),
    sqlite_autoincrement=True,  # ids are never reused, so they give the order of arrival
)
"""Messages for runs. A message that a step took stays until its run is deleted, so that its key remains known."""

queues = Table(
    "core_workflow_queues",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("listed_at", _Timestamp, nullable=False),
)
"""When a working runner last recorded that it works on the queue."""

first_claims = Table(
    "core_workflow_first_claims",
    metadata,
    Column("id", _Key, Identity(always=False), primary_key=True),
    Column("claimed_at", _Timestamp, nullable=False),
    Column("seconds", _Float),
    Column("runs", Integer, nullable=False),
    Column("boot", Text),
    Column("queue", Text, nullable=False),
    Index("core_workflow_first_claims_window", "queue", "claimed_at"),
)
"""How many runs of a queue with a rate have begun, and when. Rows that have left the window are deleted."""

schedules = Table(
    "core_workflow_schedules",
    metadata,
    Column("name", _Path, primary_key=True),
    Column("workflow_name", Text, nullable=False),
    Column("timing", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("overlap", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("registered_at", _Timestamp, nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("decided_at", _Timestamp, nullable=False),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("last_run_id", _Path),
    Column("last_fired_at", _Timestamp),
    Column("waiting", Text, nullable=False, server_default="[]"),
)
"""Schedules, and up to which time their firings are decided."""
