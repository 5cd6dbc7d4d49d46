"""The hot path on PostgreSQL: one statement, one round trip, one transaction.

Rows travel as arrays of a row type. The first part of a commit is the fence: it moves on the runs that are still ours,
and only what joins with them is inserted.
"""

# ruff: noqa: S608 (texts are put together from names in this package only)

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from spine_async.storage.sql.driver.claim_rule import HOLDING_COLUMNS
from spine_async.storage.sql.schema.postgres_types import CHANGE, EVENT, NEW_RUN, STEP, RowType
from spine_async.storage.sql.schema.rows import NEW_RUN_COLUMNS


class CommitShape(NamedTuple):
    """What a commit has, by which its statement is chosen.

    Attributes:
        is_single: One change with at most one visit and one event: its values are arguments themselves, not rows of
            arrays to be joined, which takes a third off the time of a lone run's step.
    """

    is_single: bool
    has_visits: bool
    has_events: bool


@cache
def commit_statement(shape: CommitShape) -> str:
    """Arguments: an array of `CHANGE`, then those of `STEP` and `EVENT` where there are any.

    For a single change: its values, then those of its visit and its event.

    Returns the ids of the runs whose change was written.
    """
    parts = [f"fence AS ({_single_fence() if shape.is_single else _group_fence()})"]
    insert = _single_insert if shape.is_single else _group_insert
    taken = len(CHANGE.columns) if shape.is_single else 1
    if shape.has_visits:
        parts.append(f"step AS ({insert('core_workflow_steps', STEP, taken + 1)})")
        taken += len(STEP.columns) if shape.is_single else 1
    if shape.has_events:
        parts.append(f"event AS ({insert('core_workflow_event_log', EVENT, taken + 1)})")
    return f"WITH {', '.join(parts)} SELECT id FROM fence"


def _group_fence() -> str:
    change = {name: f"c.{name}" for name, _ in CHANGE.columns}
    return _FENCE.format(source=f"FROM {CHANGE.unnest(1, 'c')}", **change)


def _single_fence() -> str:
    names = (name for name, _ in CHANGE.columns)
    return _FENCE.format(source="", **dict(zip(names, CHANGE.arguments(1), strict=True)))


def _group_insert(table: str, rows: RowType, number: int) -> str:
    fenced = f"{rows.unnest(number, 'n')} JOIN fence ON fence.id = n.run"
    return f"INSERT INTO {table} ({rows.names}) SELECT {rows.listed('n.')} FROM {fenced}"


def _single_insert(table: str, row: RowType, first: int) -> str:
    return f"INSERT INTO {table} ({row.names}) SELECT {', '.join(row.arguments(first))} FROM fence"


_FENCE = (
    "UPDATE core_workflow_runs r SET next_seq = {next_seq}, status = {status}, updated_at = {at}, "
    "commit_id = {commit_id}, "
    "claims_since_progress = CASE WHEN {makes_progress} THEN 0 ELSE r.claims_since_progress END, "
    "completed_at = {completed_at}, error_step = {error_step}, error = {error}, "
    "error_category = {error_category}, stop_reason = {stop_reason}, "
    "owner = CASE WHEN {completed_at} IS NULL THEN r.owner END, "
    "lease_until = CASE WHEN {completed_at} IS NULL THEN r.lease_until END "
    "{source} WHERE r.id = {id} AND r.epoch = {epoch} AND r.next_seq = {expected_seq} "
    "AND r.status IN ('running', 'waiting') RETURNING r.id"
)

WRITTEN_BEFORE = (
    "SELECT r.id FROM core_workflow_runs r JOIN unnest($1::bigint[], $2::integer[], $3::text[]) AS c(id, epoch, mark) "
    "ON r.id = c.id AND r.epoch = c.epoch AND r.commit_id = c.mark"
)
"""Arguments: keys, epochs and commit ids of changes. Returns the keys of those that were the last of their runs."""

_NEW = ", ".join(f'"{name}"' for name in NEW_RUN_COLUMNS)

CREATE = (
    f"WITH new AS (SELECT * FROM {NEW_RUN.unnest(1, 'n')}), "
    f"made AS (INSERT INTO core_workflow_runs ({_NEW}, lease_until) "
    f"SELECT {_NEW}, clock_timestamp() + make_interval(secs => ttl) FROM new "
    "ON CONFLICT (run_id) DO NOTHING RETURNING id, run_id), "
    'event AS (INSERT INTO core_workflow_event_log (run, seq, "timestamp", event_type, metadata) '
    "SELECT made.id, 1, new.created_at, 'workflow_started', new.started "
    "FROM made JOIN new ON new.run_id = made.run_id WHERE new.started IS NOT NULL) "
    "SELECT id, run_id FROM made"
)
"""Argument: an array of `NEW_RUN`. Returns what was new."""

MADE_BEFORE = (
    "SELECT r.id, r.run_id FROM core_workflow_runs r JOIN unnest($1::text[], $2::text[]) AS c(run_id, mark) "
    "ON r.run_id = c.run_id AND r.commit_id = c.mark"
)
"""Arguments: ids and commit ids of creations. Returns those to which nothing has happened since."""

_IS_LEASED = "COALESCE(lease_until > clock_timestamp(), false)"

HOLDING = f"SELECT {', '.join(HOLDING_COLUMNS)}, {_IS_LEASED}, lease_until FROM core_workflow_runs WHERE run_id = $1"

CLAIM = (
    "WITH claimed AS (UPDATE core_workflow_runs SET epoch = epoch + 1, owner = $2, status = 'running', "
    "lease_until = clock_timestamp() + make_interval(secs => $8), commit_id = $9, "
    "next_seq = next_seq + CASE WHEN $4::text IS NULL THEN 0 ELSE 1 END, updated_at = $3, claims_since_progress = "
    "CASE WHEN status IN ('running', 'waiting') THEN claims_since_progress + 1 ELSE 1 END, stop_requested = NULL, "
    "completed_at = NULL, error_step = NULL, error = NULL, error_category = NULL, stop_reason = NULL "
    f"WHERE run_id = $1 AND epoch = $10 AND status = $12 AND (owner IS NULL OR owner = $2 OR NOT {_IS_LEASED} "
    "OR epoch = $11) RETURNING id, epoch, next_seq), "
    'event AS (INSERT INTO core_workflow_event_log (run, seq, "timestamp", event_type, step_name, path, metadata) '
    "SELECT id, next_seq - 1, $3, $4::text, $5::text, $6::text, $7::text FROM claimed WHERE $4::text IS NOT NULL) "
    "SELECT id, epoch, next_seq FROM claimed"
)
"""Arguments: run, owner, moment, the event's four or NULLs, ttl, mark, the epoch that was seen, `over_epoch`, and the
state that was seen.

With the seen epoch a try that was given up can no longer claim once a later one has.
"""

RENEW = (
    # In the order of their keys, as commits lock them too.
    "WITH held AS (SELECT r.id, r.epoch FROM core_workflow_runs r JOIN unnest($1::bigint[], $2::integer[]) "
    "AS c(id, epoch) ON r.id = c.id AND r.epoch = c.epoch WHERE r.status IN ('running', 'waiting') "
    "ORDER BY r.id FOR NO KEY UPDATE OF r) "
    "UPDATE core_workflow_runs r SET lease_until = clock_timestamp() + make_interval(secs => $3) "
    "FROM held WHERE r.id = held.id RETURNING r.id, r.epoch, r.stop_requested"
)

REQUEST_STOP = (
    "UPDATE core_workflow_runs SET stop_requested = $2 WHERE run_id = $1 AND status IN ('running', 'waiting') "
    "RETURNING id"
)

DELETE = "DELETE FROM core_workflow_runs WHERE run_id = $1 RETURNING id"
# Not to_regclass(): within a transaction that waited for a lock it does not see what was made meanwhile.
EXISTS = (
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class "
    "WHERE relname = 'core_workflow_schema' AND pg_catalog.pg_table_is_visible(oid))"
)
VERSION = "SELECT max(version) FROM core_workflow_schema"
STAY_IN_SCHEMA = (
    "SELECT set_config('search_path', quote_ident(COALESCE((SELECT n.nspname FROM pg_catalog.pg_class c "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'core_workflow_schema' "
    "AND pg_catalog.pg_table_is_visible(c.oid)), current_schema())), true)"
)
"""Until the end of the transaction there is only the schema that our tables are in, or will be."""
LOCK = "SELECT pg_advisory_xact_lock(7305811922174633)"
