"""What is done to a SQLite database, as functions of a plain `sqlite3.Connection`.

Each runs as a whole on the connection's own thread, so that no cancellation and no other user of the connection can
come between its statements.
"""

# ruff: noqa: S608 (texts are put together from names in this package only)

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from spine_async._model.durability import Durability
from spine_async._model.record import RunChange, RunEnd
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome
from spine_async.storage.sql.schema.rows import (
    EVENT_COLUMNS,
    VISIT_COLUMNS,
    Row,
    event_values,
    iso_moment,
    storable,
    visit_values,
)
from spine_async.storage.sql.sqlite.insert import Insertion

ResultT = TypeVar("ResultT")
Pragmas = dict[str, object]

BUSY_SECONDS = 30.0
# FULL syncs the log at each commit. NORMAL leaves that to the kernel until the log is written back to the database, so
# what was committed since may be gone after a power cut, the last ones first and none in part.
_SYNCHRONOUS: Mapping[Durability, str] = {"full": "FULL", "process": "NORMAL"}


EVENTS = Insertion("core_workflow_event_log", EVENT_COLUMNS)
_VISITS = Insertion("core_workflow_steps", VISIT_COLUMNS)

_MINE = "WHERE id = ? AND epoch = ? AND next_seq = ?"
_IN_FORCE = f"{_MINE} AND status IN ('running', 'waiting')"
_MOVED = (
    "UPDATE core_workflow_runs SET next_seq = ?, updated_at = ?, commit_id = ?, "
    "claims_since_progress = CASE WHEN ? THEN 0 ELSE claims_since_progress END"
)
# A statement that sets the state writes the index of runs under way too, which is one page in five of a step's commit.
_RUN_ON = f"{_MOVED} {_MINE} AND status = 'running'"
_ADVANCE = f"{_MOVED}, status = ? {_IN_FORCE}"
_END = (
    f"{_MOVED}, status = ?, completed_at = ?, error_step = ?, error = ?, error_category = ?, stop_reason = ?, "
    f"owner = NULL, lease_until = NULL, lease_boot = NULL {_IN_FORCE}"
)
_WRITTEN_BEFORE = "SELECT 1 FROM core_workflow_runs WHERE id = ? AND epoch = ? AND commit_id = ?"
# Children are removed by name: cascading needs a setting that belongs to whoever owns the connection.
_DELETIONS = tuple(
    f"DELETE FROM {table} WHERE run = (SELECT id FROM core_workflow_runs WHERE run_id = ?)"
    for table in ("core_workflow_steps", "core_workflow_event_log")
)


def in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    """Do the work in one write transaction, leaving the connection as it was found."""
    level = connection.isolation_level
    connection.isolation_level = None  # or sqlite3 begins a transaction of its own, which reads before it locks
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result
    finally:
        connection.isolation_level = level


def fetch(connection: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> list[Row]:
    """The rows of one query."""
    cursor = connection.cursor()
    cursor.row_factory = None  # whoever owns the engine may have set one
    return cursor.execute(sql, values).fetchall()


def version(connection: sqlite3.Connection) -> int:
    """Schema version of the database; 0 where our tables are missing."""
    if not fetch(connection, "SELECT 1 FROM sqlite_master WHERE name = 'core_workflow_schema'"):
        return 0
    found = fetch(connection, "SELECT max(version) FROM core_workflow_schema")[0][0]
    return int(str(found or 0))


def prepare(connection: sqlite3.Connection, durability: Durability) -> Pragmas:
    """Make the connection patient, and as durable as is asked for; gives the settings it had."""
    before = {name: fetch(connection, f"PRAGMA {name}")[0][0] for name in ("busy_timeout", "synchronous")}
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    _use_wal(connection)
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    return before


def restore(connection: sqlite3.Connection, before: Pragmas) -> None:
    """Give the connection back the settings it had."""
    for name, value in before.items():
        connection.execute(f"PRAGMA {name} = {value}")


def commit(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> list[CommitOutcome]:
    """Write each change whose run is still at the change's epoch and number.

    Args:
        connection: Within a write transaction.
        changes: The changes; one that an earlier try had written already counts as written.
    """
    held = _advance_all(connection, changes)
    kept = [change for change, is_held in zip(changes, held, strict=True) if is_held]
    visits = [visit_values(change.key, visit, iso_moment, int) for change in kept for visit in change.visits]
    events = [event_values(change.key, event, iso_moment) for change in kept for event in change.events]
    _VISITS.insert(connection, visits)
    EVENTS.insert(connection, events)
    written = [is_held or _is_written(connection, change) for change, is_held in zip(changes, held, strict=True)]
    committed, fenced = CommitOutcome.COMMITTED, CommitOutcome.FENCED
    return [committed if is_written else fenced for is_written in written]


def delete(connection: sqlite3.Connection, run_id: str) -> bool:
    """Remove the run with all it has."""
    for statement in _DELETIONS:
        connection.execute(statement, (run_id,))
    return connection.execute("DELETE FROM core_workflow_runs WHERE run_id = ?", (run_id,)).rowcount == 1


def together(connection: sqlite3.Connection, work: Callable[[], bool]) -> bool:
    """Do the work within a transaction, and undo it where it says that it did not do all of it; whether it did."""
    connection.execute("SAVEPOINT together")
    is_done = work()
    connection.execute("RELEASE together" if is_done else "ROLLBACK TO together")
    return is_done


def _advance_all(connection: sqlite3.Connection, changes: Sequence[RunChange]) -> list[bool]:
    """The fence: which runs were still ours, and are now one change further."""
    if len(changes) > 1:
        going, running = [change for change in changes if change.end is None], RunStatus.RUNNING
        calls: dict[str, list[Row]] = {
            _RUN_ON: [_run_on_values(each) for each in going if each.status is running],
            _ADVANCE: [_advance_values(each) for each in going if each.status is not running],
            _END: [_end_values(each, each.end) for each in changes if each.end is not None],
        }
        # Nearly always all of them are, and few calls for all take half the time of one for each.
        if together(connection, lambda: all(_change_all(connection, *call) for call in calls.items())):
            return [True] * len(changes)
    return [_advance(connection, change) for change in changes]


def _change_all(connection: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> bool:
    return not rows or connection.executemany(statement, rows).rowcount == len(rows)


def _advance(connection: sqlite3.Connection, change: RunChange) -> bool:
    """Whether the run was still ours, and is now one change further."""
    if change.end is not None:
        return connection.execute(_END, _end_values(change, change.end)).rowcount == 1
    if change.status is RunStatus.RUNNING and connection.execute(_RUN_ON, _run_on_values(change)).rowcount == 1:
        return True
    return connection.execute(_ADVANCE, _advance_values(change)).rowcount == 1


def _run_on_values(change: RunChange) -> Row:
    """Those of `_MOVED` and `_MINE`, in one go: this is the hot path."""
    return (
        change.next_seq,
        _moment_of_group(change.at),
        change.commit_id,
        int(change.makes_progress),
        change.key,
        change.epoch,
        change.expected_seq,
    )


_moment_of_group = lru_cache(maxsize=16)(iso_moment)


def _advance_values(change: RunChange) -> Row:
    moved, fence = _parted(change)
    return (*moved, change.status.value, *fence)


def _parted(change: RunChange) -> tuple[Row, Row]:
    values = _run_on_values(change)
    return values[:4], values[4:]


def _end_values(change: RunChange, end: RunEnd) -> Row:
    told = (end.error_step, storable(end.error), end.error_category, storable(end.stop_reason))
    moved, fence = _parted(change)
    return (*moved, end.status.value, iso_moment(end.at), *told, *fence)


def _is_written(connection: sqlite3.Connection, change: RunChange) -> bool:
    return bool(fetch(connection, _WRITTEN_BEFORE, (change.key, change.epoch, change.commit_id)))


def _use_wal(connection: sqlite3.Connection) -> None:
    # Changing the mode does not wait for others as a transaction does, so processes starting together need patience.
    give_up_at = time.monotonic() + BUSY_SECONDS
    while fetch(connection, "PRAGMA journal_mode")[0][0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
