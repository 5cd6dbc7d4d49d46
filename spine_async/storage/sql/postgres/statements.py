"""SQL statements for PostgreSQL. Each write is one statement, so it takes one round trip and is one transaction.

Rows are passed as arrays of a row type. A commit begins with the fence, an UPDATE of the runs that still have the
expected epoch and number. Visits and events are inserted only for the runs that the fence returns.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from spine_async.storage.sql.driver.claim_rule import LEASE_STATE_COLUMNS
from spine_async.storage.sql.postgres.queue_statements import turns
from spine_async.storage.sql.schema.postgres_types import CHANGE, EVENT, NEW_RUN, STEP, RowType
from spine_async.storage.sql.schema.rows import NEW_RUN_COLUMNS


class CommitShape(NamedTuple):
    """The properties of a commit that select its statement.

    Attributes:
        is_single: Whether there is one change with at most one visit and one event. Its values are then passed as
            scalar arguments instead of arrays, which saves a third of the time of a single run's step.
        skips_locked: Whether to leave out runs whose rows are locked. Never set together with `is_single`.
        patience: How long the statement waits for a locked row.
    """

    is_single: bool
    has_visits: bool
    has_events: bool
    skips_locked: bool = False
    patience: str = "200ms"


@cache
def commit_statement(shape: CommitShape) -> str:
    """The statement of a commit, which returns the keys of the runs whose change was written.

    Its arguments are an array of `CHANGE`, then an array of `STEP` and an array of `EVENT` if there are any. If the
    commit is single, they are the values of the change, then of its visit and its event.
    """
    parts = [limited_wait(shape)]
    parts.append(f"fence AS ({_single_fence() if shape.is_single else _group_fence(shape)})")
    insert = _single_insert if shape.is_single else group_insert
    used = len(CHANGE.columns) if shape.is_single else 1
    if shape.has_visits:
        parts.append(f"step AS ({insert('core_workflow_steps', STEP, used + 1)})")
        used += len(STEP.columns) if shape.is_single else 1
    if shape.has_events:
        parts.append(f"event AS ({insert('core_workflow_event_log', EVENT, used + 1)})")
    return f"WITH {', '.join(parts)} SELECT id FROM fence"


def limited_wait(shape: CommitShape) -> str:
    """The part of the statement that limits its wait for row locks, or leaves out runs whose rows are locked."""
    return _UNLOCKED if shape.skips_locked else _PATIENCE.format(shape.patience)


def _group_fence(shape: CommitShape) -> str:
    change = {name: f"c.{name}" for name, _ in CHANGE.columns}
    join = "JOIN unlocked ON unlocked.id = c.id" if shape.skips_locked else "CROSS JOIN patience"
    return _FENCE.format(source=f"FROM {CHANGE.unnest(1, 'c')} {join}", **change)


def _single_fence() -> str:
    names = (name for name, _ in CHANGE.columns)
    return _FENCE.format(source="FROM patience", **dict(zip(names, CHANGE.arguments(1), strict=True)))


def group_insert(table: str, rows: RowType, number: int) -> str:
    """The statement that inserts the rows of an array argument whose runs have passed the fence."""
    fenced = f"{rows.unnest(number, 'n')} JOIN fence ON fence.id = n.run"
    return f"INSERT INTO {table} ({rows.names}) SELECT {rows.listed('n.')} FROM {fenced}"


def _single_insert(table: str, row: RowType, first: int) -> str:
    return f"INSERT INTO {table} ({row.names}) SELECT {', '.join(row.arguments(first))} FROM fence"


IS_HELD = "r.status IN ('running', 'waiting') AND r.owner IS NOT NULL"
"""Whether an owner may commit to the run `r`."""

# `set_config` runs before the first row is locked, because each row that is locked has been joined with its result.
_PATIENCE = "patience AS MATERIALIZED (SELECT set_config('lock_timeout', '{}', true))"
PATIENCE = _PATIENCE.format("200ms")
"""Limits the wait for row locks of this statement, without a lasting setting and without another round trip."""
_UNLOCKED = (
    f"unlocked AS MATERIALIZED (SELECT r.id FROM core_workflow_runs r JOIN {CHANGE.unnest(1, 'c')} ON r.id = c.id "
    "ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED)"
)

_FENCE = (
    "UPDATE core_workflow_runs r SET next_seq = {next_seq}, status = {status}, updated_at = {at}, "
    "commit_id = {commit_id}, "
    "claims_since_progress = CASE WHEN {makes_progress} THEN 0 ELSE r.claims_since_progress END, "
    "completed_at = {completed_at}, error_step = {error_step}, error = {error}, "
    "error_category = {error_category}, stop_reason = {stop_reason}, "
    "owner = CASE WHEN {completed_at} IS NULL THEN r.owner END, "
    "leased_until = CASE WHEN {completed_at} IS NULL THEN r.leased_until END, "
    "ready = r.ready AND {completed_at} IS NULL, turn = CASE WHEN {completed_at} IS NULL THEN r.turn END, "
    "stop_requested = CASE WHEN {completed_at} IS NULL THEN r.stop_requested END "
    "{source} WHERE r.id = {id} AND r.epoch = {epoch} AND r.next_seq = {expected_seq} "
    "AND r.status IN ('running', 'waiting') AND r.owner IS NOT NULL RETURNING r.id"
)

UNCHANGED = (
    "SELECT r.id FROM core_workflow_runs r JOIN unnest($1::bigint[], $2::integer[], $3::bigint[]) AS c(id, epoch, seq) "
    "ON r.id = c.id AND r.epoch = c.epoch AND r.next_seq = c.seq "
    "WHERE r.status IN ('running', 'waiting') AND r.owner IS NOT NULL"
)
"""Arguments: keys, epochs and expected numbers of changes. Returns the keys of the runs that pass the fence."""

COMMITTED_EARLIER = (
    "SELECT r.id FROM core_workflow_runs r JOIN unnest($1::bigint[], $2::integer[], $3::text[]) AS c(id, epoch, token) "
    "ON r.id = c.id AND r.epoch = c.epoch AND r.commit_id = c.token"
)
"""Arguments: keys, epochs and commit ids of changes. Returns the keys of the runs whose last change is among them."""

_NEW = ", ".join(f'"{name}"' for name in NEW_RUN_COLUMNS)

_CREATE = (
    "WITH {new}, "
    f"created AS (INSERT INTO core_workflow_runs ({_NEW}, leased_until) "
    f"SELECT {_NEW}, CASE WHEN owner IS NOT NULL THEN clock_timestamp() + make_interval(secs => ttl) END FROM new "
    "ON CONFLICT (run_id) DO NOTHING RETURNING id, run_id), "
    'event AS (INSERT INTO core_workflow_event_log (run, seq, "timestamp", event_type, metadata) '
    "SELECT created.id, 1, new.created_at, 'workflow_started', new.started "
    "FROM created JOIN new ON new.run_id = created.run_id WHERE new.started IS NOT NULL) "
    "SELECT id, run_id FROM created"
)
CREATE_WITHIN = _CREATE.format(new=f"new AS (SELECT n.* FROM {NEW_RUN.unnest(1, 'n')})")
"""As `CREATE`, in the transaction of a caller, whose settings it does not change."""
CREATE = _CREATE.format(new=f"{PATIENCE}, new AS (SELECT n.* FROM {NEW_RUN.unnest(1, 'n')} CROSS JOIN patience)")
"""Argument: an array of `NEW_RUN`. Returns key and id of each run that was not stored before."""

_OWN_TURN = {"turn": "COALESCE(t.turn, given.turn) AS turn", "run_id": "given.run_id"}
_NEW_WITH_TURN = ", ".join(_OWN_TURN.get(name, f'"{name}"') for name in NEW_RUN_COLUMNS)
_WITH_TURNS = (
    "given AS MATERIALIZED (SELECT n.*, n.turn AS place FROM {source}), "
    f"{turns('given', 'run_id', 'queue_key IS NOT NULL AND ready')}, "
    f"new AS (SELECT {_NEW_WITH_TURN}, ttl, started FROM given LEFT JOIN given_turns t ON t.run_id = given.run_id)"
)
_GIVEN = NEW_RUN.unnest(1, "n")
CREATE_WITH_TURNS_WITHIN = _CREATE.format(new=_WITH_TURNS.format(source=_GIVEN))
CREATE_WITH_TURNS = _CREATE.format(new=f"{PATIENCE}, {_WITH_TURNS.format(source=f'{_GIVEN} CROSS JOIN patience')}")
"""The same for runs of which some have keys."""

CREATED_EARLIER = (
    "SELECT r.id, r.run_id FROM core_workflow_runs r JOIN unnest($1::text[], $2::text[]) AS c(run_id, token) "
    "ON r.run_id = c.run_id AND r.commit_id = c.token"
)
"""Arguments: ids and commit ids of creations. Returns key and id of each run that is unchanged since its creation."""

_UNFINISHED = "status IN ('pending', 'running', 'waiting')"
NOT_DUE = "due_at = NULL, due_boot = NULL, due_seconds = NULL, ready = false, turn = NULL"
CLAIMS_AFTER = (
    "CASE WHEN status IN ('completed', 'failed', 'stopped') THEN 1 "
    "WHEN owner IS NOT NULL AND status = 'running' THEN claims_since_progress + 1 ELSE claims_since_progress END"
)
"""Value of `claims_since_progress` after a claim. A run without an owner, or one that waits, did not kill its owner."""
IS_LEASED = "COALESCE(leased_until > clock_timestamp(), false)"

LEASE_STATE = (
    f"SELECT {', '.join(LEASE_STATE_COLUMNS)}, {IS_LEASED}, leased_until FROM core_workflow_runs WHERE run_id = $1"
)

CLAIM = (
    f"WITH {PATIENCE}, claimed AS (UPDATE core_workflow_runs SET epoch = epoch + 1, owner = $2, status = 'running', "
    "leased_until = clock_timestamp() + make_interval(secs => $8), commit_id = $9, "
    "next_seq = next_seq + CASE WHEN $4::text IS NULL THEN 0 ELSE 1 END, updated_at = $3, "
    "started_at = CASE epoch WHEN 0 THEN $3 ELSE started_at END, claims_since_progress = "
    f"{CLAIMS_AFTER}, {NOT_DUE}, stop_requested = NULL, "
    "completed_at = NULL, error_step = NULL, error = NULL, error_category = NULL, stop_reason = NULL FROM patience "
    f"WHERE run_id = $1 AND epoch = $10 AND status = $12 AND (owner IS NULL OR owner = $2 OR NOT {IS_LEASED} "
    "OR epoch = $11) RETURNING id, epoch, next_seq), "
    'event AS (INSERT INTO core_workflow_event_log (run, seq, "timestamp", event_type, step_name, path, metadata) '
    "SELECT id, next_seq - 1, $3, $4::text, $5::text, $6::text, $7::text FROM claimed WHERE $4::text IS NOT NULL) "
    "SELECT id, epoch, next_seq FROM claimed"
)
"""Arguments: run, owner, timestamp, the event's four columns or NULLs, ttl, token, seen epoch, `over_epoch`,
seen status.

The seen epoch prevents an abandoned attempt from claiming the run after a later attempt has claimed it.
"""

_RENEW = (
    "WITH {patience}c AS (SELECT * FROM unnest($1::bigint[], $2::integer[]) AS c(id, epoch)), "
    # Locks rows in the order of their keys, as commits do.
    "held AS (SELECT r.id FROM core_workflow_runs r JOIN c ON r.id = c.id AND r.epoch = c.epoch {join} "
    "WHERE r.status IN ('running', 'waiting') AND r.owner IS NOT NULL ORDER BY r.id FOR NO KEY UPDATE OF r {skip}), "
    "renewed AS (UPDATE core_workflow_runs r SET "
    "leased_until = CASE WHEN $3 <> 0 THEN clock_timestamp() + make_interval(secs => $3) END, "
    "owner = CASE WHEN $3 <> 0 THEN r.owner END, due_at = CASE WHEN $3 = 0 THEN clock_timestamp() END, "
    "ready = ($3 = 0), turn = CASE WHEN $3 = 0 THEN extract(epoch FROM clock_timestamp())::float8 - 1e10 END "
    "FROM held WHERE r.id = held.id RETURNING r.id) "
    "SELECT r.id, r.epoch, r.stop_requested, renewed.id IS NOT NULL AS is_extended FROM core_workflow_runs r "
    "JOIN c ON r.id = c.id AND r.epoch = c.epoch LEFT JOIN renewed ON renewed.id = r.id "
    "WHERE r.status IN ('running', 'waiting') AND r.owner IS NOT NULL"
)
RENEW_UNLOCKED = _RENEW.format(patience="", join="", skip="SKIP LOCKED")
"""Arguments: keys, epochs, ttl. Returns the runs that are held, and whether their lease was extended."""
RENEW = _RENEW.format(patience=f"{PATIENCE}, ", join="CROSS JOIN patience", skip="")
"""The same, after a short wait for locked rows."""

REQUEST_STOP = (
    f"WITH {PATIENCE} UPDATE core_workflow_runs SET stop_requested = $2 FROM patience "
    f"WHERE run_id = $1 AND {_UNFINISHED} RETURNING id"
)

DELETE = f"DELETE FROM core_workflow_runs WHERE run_id = $1 AND (NOT $2::boolean OR NOT {_UNFINISHED}) RETURNING id"
"""Arguments: run, and whether only a run that has ended may be deleted."""

DELETE_UNUSED = (
    "WITH ended AS MATERIALIZED (SELECT r.id FROM core_workflow_runs r WHERE r.run_id = ANY($1::text[]) "
    f"AND NOT r.{_UNFINISHED} AND NOT EXISTS (SELECT 1 FROM core_workflow_runs parent "
    f"WHERE parent.run_id = r.parent_run_id AND parent.{_UNFINISHED}) ORDER BY r.id FOR UPDATE OF r SKIP LOCKED) "
    "DELETE FROM core_workflow_runs WHERE id IN (SELECT id FROM ended) RETURNING run_id"
)
"""Argument: ids of runs. Returns those that were deleted; rows that others have locked are passed over."""

# Not to_regclass(): in a transaction that waited for a lock it does not see tables created during the wait.
EXISTS = (
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class "
    "WHERE relname = 'core_workflow_schema' AND pg_catalog.pg_table_is_visible(oid))"
)
VERSION = "SELECT * FROM core_workflow_schema ORDER BY version DESC LIMIT 1"
STAY_IN_SCHEMA = (
    "SELECT set_config('search_path', quote_ident(COALESCE((SELECT n.nspname FROM pg_catalog.pg_class c "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = 'core_workflow_schema' "
    "AND pg_catalog.pg_table_is_visible(c.oid)), current_schema())), true)"
)
"""Limits the search path of the transaction to the schema that contains the tables, or will contain them."""
LOCK = "SELECT pg_advisory_xact_lock(7305811922174633)"
