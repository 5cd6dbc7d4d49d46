"""Conversion between schedules and rows, and the statements that are the same on both databases."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async.storage.sql.schema.rows import Row, iso_timestamp, parse_timestamp

_log = logging.getLogger("spine_async")

_DEFINITION = ("workflow_name", "timing", "queue", "overlap", "params")
_NEW = ("name", *_DEFINITION, "registered_at", "decided_at")
_READ = ("name", *_DEFINITION, "registered_at", "version", "decided_at", "paused", "last_run_id", "last_fired_at")

_IS_BUSY = (
    "EXISTS (SELECT 1 FROM core_workflow_runs r WHERE r.run_id = s.last_run_id "
    "AND r.status IN ('pending', 'running', 'waiting'))"
)
_COLUMNS = ", ".join(f"s.{name}" for name in (*_READ, "waiting"))
READ_SCHEDULES = f"SELECT {_COLUMNS}, {_IS_BUSY} FROM core_workflow_schedules s"  # noqa: S608


def register_statement(parameters: list[str], greatest: str, differs: str) -> str:
    """The statement that stores the definition of a schedule.

    Args:
        parameters: A parameter for each of the values of `new_values`.
        greatest: Name of the function that gives the greater of two values.
        differs: Operator that compares two rows of values.
    """
    stored = ", ".join(f"s.{name}" for name in _DEFINITION)
    given = ", ".join(f"excluded.{name}" for name in _DEFINITION)
    changes = ", ".join(f"{name} = excluded.{name}" for name in (*_DEFINITION, "registered_at"))
    return (
        f"INSERT INTO core_workflow_schedules AS s ({', '.join(_NEW)}) VALUES ({', '.join(parameters)}) "  # noqa: S608
        f"ON CONFLICT (name) DO UPDATE SET {changes}, version = s.version + 1, "
        f"decided_at = {greatest}(s.decided_at, excluded.decided_at) WHERE ({stored}) {differs} ({given})"
    )


def change_statement(parameters: list[str], returning: str) -> str:
    """The statement that changes a schedule; its parameters are the values of `change_values`."""
    decided, paused, waiting, run_id, fired_at, name, version = parameters
    return (
        f"UPDATE core_workflow_schedules SET decided_at = {decided}, paused = {paused}, waiting = {waiting}, "  # noqa: S608
        f"last_run_id = COALESCE({run_id}, last_run_id), last_fired_at = COALESCE({fired_at}, last_fired_at), "
        f"version = version + 1 WHERE name = {name} AND version = {version} RETURNING {returning}"
    )


def new_values(new: NewSchedule, timestamp: Callable[[datetime], object]) -> tuple[object, ...]:
    """The values of a new schedule."""
    at = timestamp(new.registered_at)
    return (new.name, *new.definition, at, at)


def change_values(
    change: ScheduleChange, timestamp: Callable[[datetime], object], flag: type[int]
) -> tuple[object, ...]:
    """The values of a change; `flag` converts booleans: `int` for SQLite, else `bool`."""
    return (
        timestamp(change.decided_at),
        flag(change.is_paused),
        json.dumps([iso_timestamp(each) for each in change.waiting]),
        change.run.run_id if change.run is not None else None,
        timestamp(change.fired_at) if change.fired_at is not None else None,
        change.name,
        change.version,
    )


def read_schedules(rows: Iterable[Row]) -> list[StoredSchedule]:
    """The schedules in rows of `READ_SCHEDULES`. A row that cannot be read is logged and left out."""
    found = (_read_schedule(row) for row in rows)
    return [each for each in found if each is not None]


def _read_schedule(row: Row) -> StoredSchedule | None:
    name, workflow_name, timing, queue, overlap, params, registered, version, decided, paused, *rest = row
    last_run_id, last_fired, waiting, is_busy = rest
    try:
        return StoredSchedule(
            name=str(name),
            workflow_name=str(workflow_name),
            timing=str(timing),
            queue=str(queue),
            overlap=str(overlap),
            params=str(params),
            registered_at=parse_timestamp(registered),
            version=int(str(version)),
            decided_at=parse_timestamp(decided),
            is_paused=bool(paused),
            last_run_id=None if last_run_id is None else str(last_run_id),
            last_fired_at=None if last_fired is None else parse_timestamp(last_fired),
            is_busy=bool(is_busy),
            waiting=tuple(parse_timestamp(each) for each in json.loads(str(waiting))),
        )
    except (ValueError, TypeError):
        _log.error("schedule %s has a value that cannot be decoded; delete its row of core_workflow_schedules", name)
        return None
