"""Commits of changes as functions of a plain `sqlite3.Connection` in a write transaction."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from functools import lru_cache

from spine_async._model.run_change import Release, RunChange, RunEnd, end_token, ended_message
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome
from spine_async.storage.boot_clock import boot_time
from spine_async.storage.sql.schema.due_columns import HELD, DueColumns, due_columns, turn_at
from spine_async.storage.sql.schema.rows import (
    EVENT_COLUMNS,
    VISIT_COLUMNS,
    Row,
    escaped_text,
    event_values,
    iso_timestamp,
    visit_values,
)
from spine_async.storage.sql.sqlite.insert import Inserter
from spine_async.storage.sql.sqlite.jobs import fetch, in_savepoint

EVENTS = Inserter("core_workflow_event_log", EVENT_COLUMNS)
VISITS = Inserter("core_workflow_steps", VISIT_COLUMNS)

IS_HELD = "status IN ('running', 'waiting') AND owner IS NOT NULL"
_FENCE = "WHERE id = ? AND epoch = ? AND next_seq = ?"
_UNFINISHED_FENCE = f"{_FENCE} AND {IS_HELD}"
_UPDATE = (
    "UPDATE core_workflow_runs SET next_seq = ?, updated_at = ?, commit_id = ?, "
    "claims_since_progress = CASE WHEN ? THEN 0 ELSE claims_since_progress END"
)
# Setting `status` also writes the index of unfinished runs, one of the five pages that a step's commit writes.
_ADVANCE_RUNNING = f"{_UPDATE} {_FENCE} AND status = 'running' AND owner IS NOT NULL"
_ADVANCE = f"{_UPDATE}, status = ? {_UNFINISHED_FENCE}"
_WITHOUT_OWNER = "owner = NULL, leased_until = NULL, lease_boot = NULL"
_ENDED = (
    "status = ?, completed_at = ?, error_step = ?, error = ?, error_category = ?, stop_reason = ?, ready = 0, "
    f"turn = NULL, stop_requested = NULL, {_WITHOUT_OWNER}"
)
_END = f"{_UPDATE}, {_ENDED} {_UNFINISHED_FENCE}"
_RELEASED = (
    "status = ?, claims_since_progress = claims_since_progress + ?, due_at = ?, due_boot = ?, due_seconds = ?, "
    f"ready = ?, turn = ?, {_WITHOUT_OWNER}"
)
# A change that is released with progress begins to count anew.
_COUNTED = "claims_since_progress = CASE WHEN ? THEN 0 ELSE claims_since_progress END + ?"
_ADVANCE_AND_RELEASE = (
    f"UPDATE core_workflow_runs SET next_seq = ?, updated_at = ?, commit_id = ?, {_COUNTED}, status = ?, due_at = ?, "
    f"due_boot = ?, due_seconds = ?, ready = ?, turn = ?, {_WITHOUT_OWNER} {_UNFINISHED_FENCE}"
)
_HELD_BY = f"WHERE id = ? AND epoch = ? AND {IS_HELD}"
_RELEASE = f"UPDATE core_workflow_runs SET commit_id = ?, {_RELEASED} {_HELD_BY}"
_RESTORE = f"UPDATE core_workflow_runs SET commit_id = ?, {_ENDED} {_HELD_BY}"
_WAKE_IF_SENT = (
    "UPDATE core_workflow_runs SET ready = 1, turn = ? WHERE id = ? AND NOT ready "
    "AND EXISTS (SELECT 1 FROM core_workflow_inbox WHERE run = ? AND NOT taken)"
)
_WAKE_IF_STOPPED = (
    "UPDATE core_workflow_runs SET ready = 1, turn = ? WHERE id = ? AND NOT ready AND stop_requested IS NOT NULL "
    "AND owner IS NULL AND completed_at IS NULL"
)
_TAKE = "UPDATE core_workflow_inbox SET taken = 1, unseen = 0 WHERE id = ? AND run = ?"
_TRACE = "UPDATE core_workflow_runs SET traceparent = ? WHERE id = ?"
_DEFINE = "UPDATE core_workflow_runs SET workflow_version = ?, fingerprint = ?, total_steps = ? WHERE id = ?"
_NOTIFY = (
    "INSERT INTO core_workflow_inbox (run, name, value, received_at, token, taken, unseen) "
    "SELECT id, ?, 'null', ?, ?, 0, 1 FROM core_workflow_runs WHERE run_id = ? AND status <> 'completed'"
)
_COMMITTED_EARLIER = "SELECT 1 FROM core_workflow_runs WHERE id = ? AND epoch = ? AND commit_id = ?"


def commit(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> list[CommitOutcome]:
    """Write each change that passes its fence.

    Args:
        connection: In a write transaction.
        changes: A change that an earlier attempt committed counts as committed.
    """
    passed = _advance_all(connection, changes)
    written = [change for change, has_passed in zip(changes, passed, strict=True) if has_passed]
    visits = [visit_values(change.key, visit, iso_timestamp, int) for change in written for visit in change.visits]
    events = [event_values(change.key, event, iso_timestamp) for change in written for event in change.events]
    VISITS.insert(connection, visits)
    EVENTS.insert(connection, events)
    for change in written:
        if change.taken:
            connection.executemany(_TAKE, [(message, change.key) for message in change.taken])
        if change.traceparent is not None:
            connection.execute(_TRACE, (change.traceparent, change.key))
        if change.definition is not None:
            connection.execute(_DEFINE, (*astuple(change.definition), change.key))
        if change.notified_run_id is not None:
            at, token = iso_timestamp(change.at), end_token(change)
            name = ended_message(change.run_id)
            connection.execute(_NOTIFY, (name, at, token, change.notified_run_id))
        if change.release is not None:
            _wake_if_wanted(connection, change.key, change.release)
    committed, fenced = CommitOutcome.COMMITTED, CommitOutcome.FENCED
    return [
        committed if has_passed or _is_committed(connection, change) else fenced
        for change, has_passed in zip(changes, passed, strict=True)
    ]


def release(connection: sqlite3.Connection, key: int, epoch: int, token: str, given: Release) -> bool:
    """Release the run without a change; whether the epoch held it, or an earlier attempt with the token released it."""
    end = given.restored
    if end is not None:
        cursor = connection.execute(_RESTORE, (token, *_ended_values(end), key, epoch))
    else:
        due = (given.status.value, int(given.counts), *_due(given).values(iso_timestamp, int))
        cursor = connection.execute(_RELEASE, (token, *due, key, epoch))
    if cursor.rowcount == 0:
        return bool(fetch(connection, _COMMITTED_EARLIER, (key, epoch, token)))
    if end is None:
        _wake_if_wanted(connection, key, given)
    return True


def _wake_if_wanted(connection: sqlite3.Connection, key: int, given: Release) -> None:
    """Make a run that was released ready if there is a message for it, or if it was asked to stop.

    Its former owner may not have seen the request.
    """
    turn = turn_at(datetime.now(UTC), was_started=True)
    if not given.ignores_stop:
        connection.execute(_WAKE_IF_STOPPED, (turn, key))
    if given.awaits_messages:
        connection.execute(_WAKE_IF_SENT, (turn, key, key))


def _due(given: Release) -> DueColumns:
    if given.due is None:
        return HELD
    now = boot_time()
    return due_columns(given.due, datetime.now(UTC), now.boot, now.seconds, was_started=True)


def _advance_all(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> list[bool]:
    """Update the runs of the changes; whether each change passed its fence."""
    if len(changes) > 1 and all(change.release is None for change in changes):
        unended, running = [change for change in changes if change.end is None], RunStatus.RUNNING
        rows: dict[str, list[Row]] = {
            _ADVANCE_RUNNING: [_running_values(each) for each in unended if each.status is running],
            _ADVANCE: [_advance_values(each) for each in unended if each.status is not running],
            _END: [_end_values(each, each.end) for each in changes if each.end is not None],
        }
        # Nearly always all changes pass, and one call per statement takes half the time of one call per change.
        if in_savepoint(connection, lambda: all(_update_all(connection, *each) for each in rows.items())):
            return [True] * len(changes)
    return [_advance(connection, change) for change in changes]


def _update_all(connection: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> bool:
    return not rows or connection.executemany(statement, rows).rowcount == len(rows)


def _advance(connection: sqlite3.Connection, change: RunChange) -> bool:
    """Update the run of the change; whether the change passed its fence."""
    if change.end is not None:
        return connection.execute(_END, _end_values(change, change.end)).rowcount == 1
    if change.release is not None:
        return connection.execute(_ADVANCE_AND_RELEASE, _release_values(change, change.release)).rowcount == 1
    is_running = change.status is RunStatus.RUNNING
    if is_running and connection.execute(_ADVANCE_RUNNING, _running_values(change)).rowcount == 1:
        return True
    return connection.execute(_ADVANCE, _advance_values(change)).rowcount == 1


_commit_timestamp = lru_cache(maxsize=16)(iso_timestamp)  # most changes of a group have the same time


def _update_values(change: RunChange) -> Row:
    return (change.next_seq, _commit_timestamp(change.at), change.commit_id, int(change.makes_progress))


def _fence_values(change: RunChange) -> Row:
    return (change.key, change.epoch, change.expected_seq)


def _running_values(change: RunChange) -> Row:
    # In one tuple, because each step passes here.
    return (
        change.next_seq,
        _commit_timestamp(change.at),
        change.commit_id,
        int(change.makes_progress),
        change.key,
        change.epoch,
        change.expected_seq,
    )


def _advance_values(change: RunChange) -> Row:
    return (*_update_values(change), change.status.value, *_fence_values(change))


def _release_values(change: RunChange, given: Release) -> Row:
    due = _due(given).values(iso_timestamp, int)
    return (*_update_values(change), int(given.counts), given.status.value, *due, *_fence_values(change))


def _end_values(change: RunChange, end: RunEnd) -> Row:
    return (*_update_values(change), *_ended_values(end), *_fence_values(change))


def _ended_values(end: RunEnd) -> Row:
    failure = (end.error_step, escaped_text(end.error), end.error_category, escaped_text(end.stop_reason))
    return (end.status.value, iso_timestamp(end.at), *failure)


def _is_committed(connection: sqlite3.Connection, change: RunChange) -> bool:
    return bool(fetch(connection, _COMMITTED_EARLIER, (change.key, change.epoch, change.commit_id)))
