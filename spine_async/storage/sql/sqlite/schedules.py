"""Schedules as functions of a plain `sqlite3.Connection`."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async.storage.sql.schema.rows import iso_timestamp
from spine_async.storage.sql.schema.schedule_rows import (
    READ_SCHEDULES,
    change_statement,
    change_values,
    new_values,
    read_schedules,
    register_statement,
)
from spine_async.storage.sql.sqlite import leases
from spine_async.storage.sql.sqlite.jobs import fetch

_REGISTER = register_statement(["?"] * 8, "max", "IS NOT")
_CHANGE = change_statement(["?"] * 7, "1")
_READ_ALL = f"{READ_SCHEDULES} ORDER BY s.name"
_READ_ONE = f"{READ_SCHEDULES} WHERE s.name = ?"


def register(connection: sqlite3.Connection, schedules: Sequence[NewSchedule]) -> None:
    """Store the definitions, in a write transaction."""
    connection.executemany(_REGISTER, [new_values(each, iso_timestamp) for each in schedules])


def read(connection: sqlite3.Connection, names: Collection[str] | None) -> list[StoredSchedule]:
    """The stored schedules."""
    if names is None:
        return read_schedules(fetch(connection, _READ_ALL))
    return read_schedules(row for name in sorted(set(names)) for row in fetch(connection, _READ_ONE, (name,)))


def change(connection: sqlite3.Connection, given: ScheduleChange) -> bool:
    """Change a schedule and store its run, in a write transaction."""
    if not fetch(connection, _CHANGE, change_values(given, iso_timestamp, int)):
        return False
    if given.run is not None:
        leases.create(connection, [given.run])
    return True
