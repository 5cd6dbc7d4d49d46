"""Records as tuples of column values, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Table

from spine_async._model.record import EventRow, NewRun, PastVisit, StoredRun, VisitRow
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async.errors import CorruptRecordError
from spine_async.storage.sql.schema.tables import event_log, runs, steps

Row = Sequence[object]
ToMoment = Callable[[datetime], object]
"""How the database takes a moment: text on SQLite, a datetime on PostgreSQL."""

VISIT_COLUMNS = tuple(column.name for column in steps.columns)

_COLUMN_OF_FIELD = {"records_events": "emits", "item_params": "opening", "commit_id": "attempt_id"}
"""Columns of schema version 2 whose name differs from that of the record's field."""

_FIELD_OF_COLUMN = {column: name for name, column in _COLUMN_OF_FIELD.items()}


def _columns_of_record(record: type[PastVisit]) -> tuple[str, ...]:
    return tuple(_COLUMN_OF_FIELD.get(each.name, each.name) for each in fields(record))


VISIT_FIELDS = _columns_of_record(VisitRow)
"""Columns of a journal entry in the order of the record's fields, without the run's key."""

PAST_FIELDS = _columns_of_record(PastVisit)
"""Those of them that a resume reads."""

EVENT_COLUMNS = tuple(column.name for column in event_log.columns)
RUN_COLUMNS = (
    *("run_id", "workflow_name", "workflow_version", "fingerprint", "params", "params_hash", "partition"),
    *("initial_outputs", "initial_quality", "start_from", "total_steps", "status", "epoch", "owner", "next_seq"),
    *("error_step", "error", "error_category", "stop_reason", "created_at", "started_at", "updated_at", "completed_at"),
    *("metadata", "claims_since_progress"),
)
"""Columns of a stored run; `is_leased`, which the database works out, follows them."""

NEW_RUN_COLUMNS = (
    *("run_id", "workflow_name", "workflow_version", "fingerprint", "params", "params_hash", "partition"),
    *("initial_outputs", "initial_quality", "start_from", "total_steps", "status", "epoch", "owner", "next_seq"),
    *("claims_since_progress", "created_at", "started_at", "updated_at", "metadata", "commit_id"),
)


def iso_moment(at: datetime) -> str:
    """`at` as fixed-width ISO 8601 text in UTC, so that text order is time order."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    second = _second(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second)
    return f"{second}.{utc.microsecond:06}Z"


@lru_cache(maxsize=16)
def _second(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:  # noqa: PLR0917
    """Kept, since moments lie close together and each row has two of them."""
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"


def same_moment(at: datetime) -> datetime:
    """`at` itself, which is what PostgreSQL's driver takes."""
    return at


def visit_values(key: int, visit: VisitRow, moment: ToMoment, flag: type[int]) -> tuple[object, ...]:
    """Values of one journal entry, in the order of `VISIT_COLUMNS`; `flag` is `bool`, or `int` for SQLite."""
    return (
        key,
        moment(visit.started_at),
        moment(visit.completed_at),
        float(visit.duration_ms),
        visit.seq,
        visit.started_seq,
        visit.item_seq,
        visit.epoch,
        visit.attempts,
        visit.output_size,
        visit.item_index,
        flag(visit.ends_item),
        flag(visit.records_events),
        visit.path,
        visit.scope,
        visit.step_name,
        visit.step_type._value_,  # `value` is a descriptor written in Python, and this is the hot path
        visit.status._value_,
        visit.commit_id,
        storable(visit.error),
        visit.error_category,
        visit.item_params,
        visit.updates,
        visit.quality,
        visit.output,
    )


def event_values(key: int, event: EventRow, moment: ToMoment) -> tuple[object, ...]:
    """Values of one event, in the order of `EVENT_COLUMNS`."""
    return (
        key,
        event.seq,
        moment(event.timestamp),
        str(event.event_type),
        event.step_name,
        event.path,
        event.metadata,
    )


def new_run_values(run: NewRun, moment: ToMoment) -> tuple[object, ...]:
    """Values of a run about to be created, in the order of `NEW_RUN_COLUMNS`."""
    at = moment(run.created_at)
    return (
        run.run_id,
        run.workflow_name,
        run.workflow_version,
        run.fingerprint,
        run.params,
        run.params_hash,
        run.partition,
        run.initial_outputs,
        run.initial_quality,
        run.start_from,
        run.total_steps,
        RunStatus.RUNNING.value,
        1,
        run.owner,
        2 if run.records_events else 1,
        0,
        at,
        at,
        at,
        run.metadata,
        run.commit_id,
    )


def storable(text: str | None) -> str | None:
    """An error text as a database can hold it.

    A foreign exception's text may have characters that UTF-8 or PostgreSQL cannot hold, and must still be told.
    """
    if text is None or text.isprintable():
        return text
    return text.replace("\x00", "\u2400").encode("utf-8", "backslashreplace").decode()


def read_run(row: Row) -> StoredRun:
    """The run in a row of `RUN_COLUMNS` and `is_leased`.

    Raises:
        CorruptRecordError: A value is not what its column should hold.
    """
    cells = _Cells(runs, str(row[0]), row, (*RUN_COLUMNS, "is_leased"))
    for column in ("created_at", "started_at", "updated_at"):
        cells.parse(column, _moment)
    if cells.values["completed_at"] is not None:
        cells.parse("completed_at", _moment)
    cells.parse("status", RunStatus)
    cells.parse("is_leased", bool)
    return StoredRun(**cells.values)  # type: ignore[arg-type]


def read_visit(run_id: str, row: Row) -> VisitRow:
    """The journal entry in a row of `VISIT_FIELDS`.

    Raises:
        CorruptRecordError: A value is not what its column should hold.
    """
    try:
        visit = VisitRow(*row)  # type: ignore[arg-type]
        visit.step_type = _STEP_TYPES[visit.step_type]
        visit.status = _STEP_STATES[visit.status]
        visit.started_at = _moment(visit.started_at)
        visit.completed_at = _moment(visit.completed_at)
        visit.ends_item = bool(visit.ends_item)
        visit.records_events = bool(visit.records_events)
    except _UNREADABLE:
        return VisitRow(**_visit_cells(run_id, row, VISIT_FIELDS))  # type: ignore[arg-type]
    return visit


def read_past_visits(run_id: str, rows: Sequence[Row]) -> list[PastVisit]:
    """The journal entries in rows of `PAST_FIELDS`.

    Raises:
        CorruptRecordError: A value is not what its column should hold.
    """
    try:
        return _past_visits(rows)
    except _UNREADABLE:
        return [PastVisit(**_visit_cells(run_id, row, PAST_FIELDS)) for row in rows]  # type: ignore[arg-type]


def _past_visits(rows: Iterable[Any]) -> list[PastVisit]:
    """All of them at once: a resume waits for everything that the run has."""
    kinds, states = _STEP_TYPES, _STEP_STATES
    return [
        PastVisit(
            path,
            name,
            kinds[kind],
            states[state],
            attempts,
            started if type(started) is datetime and started.tzinfo is not None else _moment(started),
            duration,
            output,
            size,
            updates,
            quality,
            item_params,
        )
        for path, name, kind, state, attempts, started, duration, output, size, updates, quality, item_params in rows
    ]


_UNREADABLE = (ValueError, TypeError, KeyError)  # the row is read once more then, with care, to name the column


def _visit_cells(run_id: str, row: Row, columns: Sequence[str]) -> dict[str, object]:
    """Values by the name of the record's field."""
    cells = _Cells(steps, run_id, row, columns)
    for column, read in _VISIT_READERS.items():
        if column in cells.values:
            cells.parse(column, read)
    return {_FIELD_OF_COLUMN.get(column, column): value for column, value in cells.values.items()}


_STEP_TYPES: dict[str, StepType] = {each.value: each for each in StepType}
_STEP_STATES: dict[str, StepStatus] = {each.value: each for each in StepStatus}


def read_event(run_id: str, row: Row) -> EventRow:
    """The event in a row of `EVENT_COLUMNS`.

    Raises:
        CorruptRecordError: A value is not what its column should hold.
    """
    cells = _Cells(event_log, run_id, row, EVENT_COLUMNS)
    cells.values.pop("run", None)
    cells.parse("timestamp", _moment)
    return EventRow(**cells.values)  # type: ignore[arg-type]


class _Cells:
    """A row by column name, with its values turned into what the record wants."""

    __slots__ = ("_run_id", "_table", "values")

    def __init__(self, table: Table, run_id: str, row: Row, columns: Sequence[str]) -> None:
        self._table = table
        self._run_id = run_id
        self.values = dict(zip(columns, row, strict=True))

    def parse(self, column: str, read: Callable[[Any], object]) -> None:
        try:
            self.values[column] = read(self.values[column])
        except (ValueError, TypeError) as exc:
            raise CorruptRecordError(
                f"run {self._run_id!r}: column {column!r} of {self._table.name} holds a value that cannot be read; "
                "restore the row from a backup, or delete the run"
            ) from exc


def _moment(value: object) -> datetime:
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)  # type: ignore[arg-type]
    if at.tzinfo is None:
        raise ValueError("a moment without its time zone")
    return at


_VISIT_READERS: Mapping[str, Callable[[Any], object]] = {
    "started_at": _moment,
    "completed_at": _moment,
    "step_type": StepType,
    "status": StepStatus,
    "ends_item": bool,
    "emits": bool,
}


def columns_of(table: Table, names: Sequence[str]) -> list[Column[object]]:
    """The columns with these names, in this order."""
    return [table.c[name] for name in names]
