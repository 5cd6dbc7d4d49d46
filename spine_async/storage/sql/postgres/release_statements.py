"""SQL statements for commits that do more than steps, for instance release a run, and for releases without a commit."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from functools import cache

from spine_async.storage.sql.postgres.statements import IS_HELD, PATIENCE, CommitShape, group_insert, limited_wait
from spine_async.storage.sql.schema.postgres_types import CHANGE, EVENT, STEP

_OUTCOMES = (
    ("id", "bigint"),
    ("keeps_owner", "boolean"),
    ("counts", "integer"),
    ("due_at", "timestamptz"),
    ("due_boot", "text"),
    ("due_seconds", "double precision"),
    ("ready", "boolean"),
    ("turn", "double precision"),
    ("traceparent", "text"),
    ("ignores_stop", "boolean"),
    ("workflow_version", "integer"),
    ("fingerprint", "text"),
    ("total_steps", "integer"),
)
"""The outcomes of the runs of a commit; one array per column, because these commits are rare."""


@cache
def release_statement(shape: CommitShape) -> str:
    """The statement of a commit that is not only of ordinary steps; returns the keys of the runs that were written.

    Its arguments are an array of `CHANGE`, an array for each column of `_OUTCOMES`, two arrays with the runs and ids of
    taken messages, four arrays with the ended child runs and the messages to their parents, then an array of `STEP` and
    an array of `EVENT` if there are any.
    """
    parts = [limited_wait(shape)]
    parts.append(f"fence AS ({_fence(shape)})")
    parts.append(f"taken AS ({_TAKE})")
    parts.append(f"notified AS ({_NOTIFY})")
    used = _NOTICES_FROM + 3
    if shape.has_visits:
        used += 1
        parts.append(f"step AS ({group_insert('core_workflow_steps', STEP, used)})")
    if shape.has_events:
        parts.append(f"event AS ({group_insert('core_workflow_event_log', EVENT, used + 1)})")
    return f"WITH {', '.join(parts)} SELECT id FROM fence"


def _fence(shape: CommitShape) -> str:
    join = "JOIN unlocked ON unlocked.id = c.id" if shape.skips_locked else "CROSS JOIN patience"
    return f"{_RELEASE_FENCE} FROM {CHANGE.unnest(1, 'c')} JOIN {_outcomes()} ON d.id = c.id {join} {_WHERE}"


def _outcomes() -> str:
    arrays = ", ".join(f"${number}::{kind}[]" for number, (_, kind) in enumerate(_OUTCOMES, 2))
    return f"unnest({arrays}) AS d({', '.join(name for name, _ in _OUTCOMES)})"


_TAKEN_FROM = len(_OUTCOMES) + 2
_TAKE = (
    "UPDATE core_workflow_inbox i SET taken = true, unseen = false "
    f"FROM unnest(${_TAKEN_FROM}::bigint[], ${_TAKEN_FROM + 1}::bigint[]) AS t(run, id) "
    "JOIN fence ON fence.id = t.run WHERE i.id = t.id AND i.run = t.run"
)
_NOTICES_FROM = _TAKEN_FROM + 2
# It changes no row of the parent, so it waits for nobody.
_NOTIFY = (
    "INSERT INTO core_workflow_inbox (run, name, value, received_at, token) "
    "SELECT p.id, n.name, 'null', clock_timestamp(), n.token "
    f"FROM unnest(${_NOTICES_FROM}::bigint[], ${_NOTICES_FROM + 1}::text[], ${_NOTICES_FROM + 2}::text[], "
    f"${_NOTICES_FROM + 3}::text[]) AS n(run, parent, name, token) JOIN fence ON fence.id = n.run "
    "JOIN core_workflow_runs p ON p.run_id = n.parent AND p.status <> 'completed'"
)
STARTED_TURN = "extract(epoch FROM clock_timestamp())::float8 - 1e10"
"""The turn of a run that was claimed before and becomes ready now, as `due_columns.turn_at` computes it."""

# A run that was asked to stop is ready when its owner gives it up, because the owner may not have seen the request.
_IS_ASKED = "(r.stop_requested IS NOT NULL AND c.completed_at IS NULL AND NOT d.ignores_stop)"
_RELEASE_FENCE = (
    "UPDATE core_workflow_runs r SET next_seq = c.next_seq, status = c.status, updated_at = c.at, "
    "commit_id = c.commit_id, "
    "claims_since_progress = CASE WHEN c.makes_progress THEN 0 ELSE r.claims_since_progress END + d.counts, "
    "completed_at = c.completed_at, error_step = c.error_step, error = c.error, "
    "error_category = c.error_category, stop_reason = c.stop_reason, "
    "owner = CASE WHEN d.keeps_owner THEN r.owner END, "
    "leased_until = CASE WHEN d.keeps_owner THEN r.leased_until END, "
    "traceparent = COALESCE(d.traceparent, r.traceparent), "
    "workflow_version = COALESCE(d.workflow_version, r.workflow_version), "
    "fingerprint = COALESCE(d.fingerprint, r.fingerprint), total_steps = COALESCE(d.total_steps, r.total_steps), "
    "due_at = d.due_at, due_boot = d.due_boot, due_seconds = d.due_seconds, "
    f"ready = d.ready OR (r.ready AND d.keeps_owner) OR ({_IS_ASKED} AND NOT d.keeps_owner), "
    f"turn = CASE WHEN d.keeps_owner THEN r.turn WHEN d.ready OR NOT {_IS_ASKED} THEN d.turn ELSE {STARTED_TURN} END, "
    "stop_requested = CASE WHEN c.completed_at IS NULL THEN r.stop_requested END"
)
_WHERE = f"WHERE r.id = c.id AND r.epoch = c.epoch AND r.next_seq = c.expected_seq AND {IS_HELD} RETURNING r.id"

WAKE_IF_SENT = (
    f"UPDATE core_workflow_runs r SET ready = true, turn = {STARTED_TURN} WHERE r.id = ANY($1::bigint[]) "
    "AND NOT r.ready AND EXISTS (SELECT 1 FROM core_workflow_inbox i WHERE i.run = r.id AND NOT i.taken) "
    "RETURNING r.id"
)
"""Argument: keys of runs that this transaction has released. Makes those ready for which there is a message.

It is the statement after the release, whose snapshot would not contain a message that arrived during the release.
"""

RELEASE = (
    f"WITH {PATIENCE} UPDATE core_workflow_runs r SET commit_id = $3, status = $4, "
    "claims_since_progress = r.claims_since_progress + $5, due_at = $6, due_boot = $7, due_seconds = $8, "
    "ready = $9 OR (r.stop_requested IS NOT NULL AND $11::timestamptz IS NULL AND NOT $16::boolean), "
    "turn = CASE WHEN $9 OR r.stop_requested IS NULL OR $11::timestamptz IS NOT NULL OR $16::boolean THEN $10 "
    f"ELSE {STARTED_TURN} END, "
    "completed_at = $11, error_step = $12, error = $13, error_category = $14, stop_reason = $15, "
    "stop_requested = CASE WHEN $11::timestamptz IS NULL THEN r.stop_requested END, owner = NULL, leased_until = NULL "
    f"FROM patience WHERE r.id = $1 AND r.epoch = $2 AND {IS_HELD} RETURNING r.id"
)
"""Arguments: key, epoch, token, status, counted claims, the five columns of a due run, the five of an ended run,
and whether a request to stop the run is ignored.
"""
