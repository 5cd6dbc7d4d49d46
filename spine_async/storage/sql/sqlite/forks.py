"""Forks of runs as functions of a plain `sqlite3.Connection`."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from spine_async._model.fork import ForkOutcome, NewFork
from spine_async.storage.sql.schema.fork_columns import copy_events, copy_visits
from spine_async.storage.sql.schema.rows import event_values, iso_timestamp, visit_values
from spine_async.storage.sql.sqlite import leases
from spine_async.storage.sql.sqlite.changes import EVENTS, VISITS
from spine_async.storage.sql.sqlite.jobs import fetch

_SOURCE = "SELECT id FROM core_workflow_runs WHERE run_id = ? AND created_at = ?"
_MARK = "UPDATE core_workflow_runs SET next_seq = ?, forked_from = ? WHERE id = ? AND forked_from IS NULL"
_COPIES = (copy_visits("?", "?", "?"), copy_events("?", "?", "?"))
_REPLACE = "UPDATE core_workflow_steps SET output = ?, output_size = ? WHERE run = ? AND path = ?"


def fork(connection: sqlite3.Connection, new: NewFork) -> ForkOutcome:
    """Store the new run with the copied rows, in a write transaction."""
    source = fetch(connection, _SOURCE, (new.source_id, iso_timestamp(new.source_created_at)))
    if not source:
        return ForkOutcome.NOT_FOUND
    (claim,) = leases.create(connection, [new.run])
    if claim is None:
        return ForkOutcome.TAKEN
    if connection.execute(_MARK, (new.next_seq, new.source_id, claim.key)).rowcount == 0:
        return ForkOutcome.FORKED  # by an earlier attempt, whose answer was lost
    for statement in _COPIES:
        connection.execute(statement, (claim.key, source[0][0], new.until))
    _write_edits(connection, claim.key, new)
    return ForkOutcome.FORKED


def _write_edits(connection: sqlite3.Connection, key: int, new: NewFork) -> None:
    """Replace copied outputs, and add the row and the event that follow the copied ones."""
    edits = [(text, len(text.encode()), key, path) for path, text in new.outputs.items()]
    connection.executemany(_REPLACE, edits)
    seq = new.until + 1
    if new.override is not None:
        VISITS.insert(connection, [visit_values(key, replace(new.override, seq=seq), iso_timestamp, int)])
    if new.event is not None:
        EVENTS.insert(connection, [event_values(key, replace(new.event, seq=seq), iso_timestamp)])
