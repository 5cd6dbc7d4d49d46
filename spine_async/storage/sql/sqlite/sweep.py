"""Sweeps as functions of a plain `sqlite3.Connection`.

Theory of operation: `look` needs no write transaction. It reads the partial indexes of what is due later, of messages
that no sweep has seen, and of held runs. Only if there is something to do, `sweep` does it in a write transaction.
"""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from spine_async._model.due import Sweep
from spine_async._model.turn import EXECUTED_BEFORE
from spine_async.storage.boot_clock import BootTime, boot_time
from spine_async.storage.sql.schema.due_columns import turn_at
from spine_async.storage.sql.schema.rows import Row, iso_timestamp
from spine_async.storage.sql.sqlite.jobs import fetch
from spine_async.storage.sql.sqlite.turns import Turns

_MOST = 5000
"""Runs that one sweep makes ready by time, so that a sweep holds the write lock for a short time."""

# The conditions repeat those of the indexes literally, because SQLite compares their texts.
_LATER = "owner IS NULL AND NOT ready AND due_at IS NOT NULL AND due_boot IS NULL"
_LATER_IN_BOOT = "owner IS NULL AND NOT ready AND due_boot IS NOT NULL"
_FIRST_AT = f"SELECT due_at FROM core_workflow_runs WHERE {_LATER} ORDER BY due_at LIMIT 1"
_FIRST_SECONDS = (
    f"SELECT due_seconds FROM core_workflow_runs WHERE {_LATER_IN_BOOT} AND due_boot = ? ORDER BY due_seconds LIMIT 1"
)
_OF_OTHER_BOOT = "SELECT 1 FROM core_workflow_runs WHERE {later} AND due_boot {sign} ? LIMIT 1"
_IS_BEFORE_BOOT, _IS_AFTER_BOOT = (_OF_OTHER_BOOT.format(later=_LATER_IN_BOOT, sign=sign) for sign in "<>")
_ENDED_LEASE = "NOT COALESCE(lease_boot = ? AND leased_until > ?, 0)"
_OWNERS = (
    f"SELECT owner, max({_ENDED_LEASE}), min(CASE WHEN lease_boot = ? AND leased_until > ? THEN leased_until END) "
    "FROM core_workflow_runs WHERE owner IS NOT NULL AND NOT ready GROUP BY owner"
)
_NEWS = (
    "SELECT 1 FROM core_workflow_inbox i CROSS JOIN core_workflow_runs r ON r.id = i.run "
    "WHERE i.unseen AND r.owner IS NULL LIMIT 1"
)

_FORGET_OTHER_BOOTS = (
    "UPDATE core_workflow_runs SET due_boot = NULL, due_seconds = NULL WHERE id IN "
    f"(SELECT id FROM core_workflow_runs WHERE {_LATER_IN_BOOT} AND due_boot < ? UNION ALL "
    f"SELECT id FROM core_workflow_runs WHERE {_LATER_IN_BOOT} AND due_boot > ?)"
)
_DUE_AT = (
    "(SELECT id, queue, queue_key, priority, turn FROM core_workflow_runs "
    f"WHERE {_LATER} AND due_at <= ? ORDER BY due_at LIMIT {_MOST})"
)
_DUE_IN_BOOT = (
    f"(SELECT id, queue, queue_key, priority, turn FROM core_workflow_runs WHERE {_LATER_IN_BOOT} AND due_boot = ? "
    f"AND due_seconds <= ? ORDER BY due_seconds LIMIT {_MOST})"
)
_WITH_KEY = "queue_key IS NOT NULL AND COALESCE(turn, 0) > 0"
# A new run with a key gets its turn when it becomes ready.
_READY_BY_TIME = f"UPDATE core_workflow_runs SET ready = 1 WHERE id IN (SELECT id FROM {{due}} WHERE NOT ({_WITH_KEY}))"
_DUE_WITH_KEY = f"SELECT id, queue, queue_key, priority, turn FROM {{due}} WHERE {_WITH_KEY}"
_READY_WITH_TURN = "UPDATE core_workflow_runs SET ready = 1, turn = ? WHERE id = ?"
# The plus signs here and in other statements keep SQLite from reading all runs of a status by the index for listings.
_READY_BY_NEWS = (
    "UPDATE core_workflow_runs SET ready = 1, turn = ? WHERE id IN (SELECT run FROM core_workflow_inbox WHERE unseen) "
    "AND owner IS NULL AND NOT ready AND +status = 'waiting'"
)
# Messages of a held run stay unseen, because its owner may release it without knowing of them.
_FORGET_NEWS = (
    "UPDATE core_workflow_inbox SET unseen = 0 WHERE unseen "
    "AND (SELECT owner FROM core_workflow_runs r WHERE r.id = core_workflow_inbox.run) IS NULL"
)
_READY_GONE = (
    f"UPDATE core_workflow_runs SET ready = 1, turn = ? + (status = 'running') * {EXECUTED_BEFORE} "
    "WHERE owner = ? AND NOT ready"
)
_READY_LAPSED = f"{_READY_GONE} AND {_ENDED_LEASE} AND run_id NOT IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Look:
    """The result of reading the indexes.

    Attributes:
        is_due: Whether a run without an owner is to be made ready.
        sweep: The result of a sweep that changes nothing.
    """

    is_due: bool
    sweep: Sweep

    def needs_write(self, gone: Collection[str], lapsed: Collection[str]) -> bool:
        """Whether a sweep for these owners changes anything."""
        owners = self.sweep.owners
        return self.is_due or any(each in owners for each in gone) or any(owners.get(each, False) for each in lapsed)


def look(connection: sqlite3.Connection) -> Look:
    """Read the indexes."""
    now, at = boot_time(), datetime.now(UTC)
    owners = fetch(connection, _OWNERS, (now.boot, now.seconds) * 2)
    seconds = _seconds_until(connection, now, at)
    is_due = any(each <= 0 for each in seconds) or _has_other_boot(connection, now) or bool(fetch(connection, _NEWS))
    ends = [float(str(until)) - now.seconds for _, _, until in owners if until is not None]
    # A lease that has ended is no reason to look again at once: its owner is alive, or has time to renew it.
    next_due = min((*(max(0.0, each) for each in seconds), *(each for each in ends if each > 0)), default=None)
    found = {str(owner): bool(has_ended) for owner, has_ended, _ in owners}
    return Look(is_due, Sweep(found, next_due, made_ready=False))


def sweep(
    connection: sqlite3.Connection, gone: Collection[str], lapsed: Collection[str], spared: Collection[str]
) -> Sweep:
    """Make runs ready that are due.

    Args:
        connection: In a write transaction.
        gone: Owners that do not exist any more.
        lapsed: Owners whose runs are due once their leases have ended.
        spared: Ids of runs of these owners that stay held.
    """
    now, at = boot_time(), datetime.now(UTC)
    turn = turn_at(at, was_started=True)
    connection.execute(_FORGET_OTHER_BOOTS, (now.boot, now.boot))
    _ready_by_time(connection, _DUE_AT, (iso_timestamp(at),))
    _ready_by_time(connection, _DUE_IN_BOOT, (now.boot, now.seconds))
    if fetch(connection, _NEWS):
        connection.execute(_READY_BY_NEWS, (turn,))
        connection.execute(_FORGET_NEWS)
    kept = json.dumps(list(spared))
    connection.executemany(_READY_GONE, [(turn, owner) for owner in gone])
    connection.executemany(_READY_LAPSED, [(turn, owner, now.boot, now.seconds, kept) for owner in lapsed])
    return replace(look(connection).sweep, made_ready=True)


def _ready_by_time(connection: sqlite3.Connection, due: str, values: tuple[object, ...]) -> None:
    """Make the runs ready whose time has come."""
    with_key = fetch(connection, _DUE_WITH_KEY.format(due=due), values)
    connection.execute(_READY_BY_TIME.format(due=due), values)
    turns = Turns(connection)
    for key, queue, queue_key, priority, turn in with_key:
        own = turns.take(str(queue), str(queue_key), int(str(priority)), float(str(turn)))
        connection.execute(_READY_WITH_TURN, (own, key))


def _seconds_until(connection: sqlite3.Connection, now: BootTime, at: datetime) -> list[float]:
    """Seconds until the first run is due by each of the two clocks."""
    by_wall, in_boot = fetch(connection, _FIRST_AT), fetch(connection, _FIRST_SECONDS, (now.boot,))
    return [*(_until(row, at) for row in by_wall), *(float(str(row[0])) - now.seconds for row in in_boot)]


def _until(row: Row, at: datetime) -> float:
    try:
        return (datetime.fromisoformat(str(row[0])) - at).total_seconds()
    except (ValueError, TypeError):  # not written by this library; the run is claimed, and reported, at once
        return 0.0


def _has_other_boot(connection: sqlite3.Connection, now: BootTime) -> bool:
    return bool(fetch(connection, _IS_BEFORE_BOOT, (now.boot,)) or fetch(connection, _IS_AFTER_BOOT, (now.boot,)))
