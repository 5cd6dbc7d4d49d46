"""Conversion between records and rows of column values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Table

from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async._model.visit_row import EventRow, PastVisit, VisitRow
from spine_async.errors import CorruptRecordError
from spine_async.storage.sql.schema.due_columns import DUE_COLUMNS, DueColumns
from spine_async.storage.sql.schema.tables import event_log, runs, steps

Row = Sequence[object]
ToTimestamp = Callable[[datetime], object]
"""Converts a timestamp to the form that the driver takes: text for SQLite, a datetime for PostgreSQL."""

VISIT_COLUMNS = tuple(column.name for column in steps.columns)
VISIT_FIELDS = tuple(each.name for each in fields(VisitRow))
"""The columns of `VisitRow` in the order of its fields, which is the order in which they are read."""

PAST_FIELDS = tuple(each.name for each in fields(PastVisit))
"""The columns of `PastVisit` in the order of its fields."""

EVENT_COLUMNS = tuple(column.name for column in event_log.columns)
RUN_COLUMNS = (
    *("run_id", "workflow_name", "workflow_version", "fingerprint", "params", "params_hash", "partition"),
    *("initial_outputs", "initial_quality", "start_from", "total_steps", "status", "epoch", "owner", "next_seq"),
    *("error_step", "error", "error_category", "stop_reason", "created_at", "started_at", "updated_at", "completed_at"),
    *("metadata", "claims_since_progress", "request_hash", "queue", "queue_key", "priority", "due_at", "expires_at"),
    *("started_by", "parent_run_id", "stop_requested", "traceparent", "forked_from", "id"),
)
"""Columns of a stored run. Queries add `is_leased` as the last column."""

NEW_RUN_COLUMNS = (
    *("run_id", "workflow_name", "workflow_version", "fingerprint", "params", "params_hash", "partition"),
    *("initial_outputs", "initial_quality", "start_from", "total_steps", "status", "epoch", "owner", "next_seq"),
    *("claims_since_progress", "created_at", "started_at", "updated_at", "metadata", "commit_id"),
    *("request_hash", "queue", "queue_key", "priority", "expires_at", "started_by", "traceparent"),
    "parent_run_id",
    *DUE_COLUMNS,
)


def iso_timestamp(at: datetime) -> str:
    """`at` as ISO 8601 text of fixed width in UTC, so that the order of the texts is the order of time."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    second = _format_second(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second)
    return f"{second}.{utc.microsecond:06}Z"


@lru_cache(maxsize=16)
def _format_second(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:  # noqa: PLR0917
    """The date and time without fractions; cached, because the timestamps of a commit lie close together.

    With `datetime.isoformat` instead a step of W3 takes about 5 % longer.
    """
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"


def unchanged_timestamp(at: datetime) -> datetime:
    """`at` itself, which is the form that asyncpg takes."""
    return at


def visit_values(key: int, visit: VisitRow, timestamp: ToTimestamp, flag: type[int]) -> tuple[object, ...]:
    """Values of one visit in the order of `VISIT_COLUMNS`; `flag` converts booleans: `int` for SQLite, else `bool`."""
    return (
        key,
        timestamp(visit.started_at),
        timestamp(visit.completed_at),
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
        visit.step_type._value_,  # `value` is a property that takes ten times as long
        visit.status._value_,
        visit.commit_id,
        escaped_text(visit.error),
        visit.error_category,
        visit.target,
        visit.item_params,
        visit.appends,
        visit.updates,
        visit.quality,
        visit.output,
    )


def event_values(key: int, event: EventRow, timestamp: ToTimestamp) -> tuple[object, ...]:
    """Values of one event in the order of `EVENT_COLUMNS`."""
    return (
        key,
        event.seq,
        timestamp(event.timestamp),
        str(event.event_type),
        event.step_name,
        event.path,
        event.metadata,
    )


def new_run_values(run: NewRun, timestamp: ToTimestamp, flag: type[int], due: DueColumns) -> tuple[object, ...]:
    """Values of a new run in the order of `NEW_RUN_COLUMNS`; `due` is `HELD` for a run that has an owner."""
    at = timestamp(run.created_at)
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
        RunStatus.RUNNING.value if run.is_held else RunStatus.PENDING.value,
        1 if run.is_held else 0,  # epoch
        run.owner,
        run.next_seq,
        0,  # claims_since_progress
        at,
        at,
        at,
        run.metadata,
        run.commit_id,
        run.request_hash,
        run.queue,
        run.queue_key,
        run.priority,
        timestamp(run.expires_at) if run.expires_at is not None else None,
        run.started_by,
        run.traceparent,
        run.parent_run_id,
        *due.values(timestamp, flag),
    )


def escaped_text(text: str | None) -> str | None:
    """An error message with the characters escaped that UTF-8 or PostgreSQL cannot store.

    The message of a user's exception may contain any character.
    """
    if text is None or text.isprintable():
        return text
    return text.replace("\x00", "\u2400").encode("utf-8", "backslashreplace").decode()


def read_run(row: Row) -> StoredRun:
    """The run in a row of `RUN_COLUMNS` and `is_leased`.

    Raises:
        CorruptRecordError: A value is invalid for its column.
    """
    decoder = _RowDecoder(runs, str(row[0]), row, (*RUN_COLUMNS, "is_leased"))
    for column in ("created_at", "started_at", "updated_at"):
        decoder.decode(column, parse_timestamp)
    for column in ("completed_at", "due_at", "expires_at"):
        if decoder.values[column] is not None:
            decoder.decode(column, parse_timestamp)
    decoder.decode("status", RunStatus)
    decoder.decode("is_leased", bool)
    decoder.values["key"] = decoder.values.pop("id")
    return StoredRun(**decoder.values)  # type: ignore[arg-type]


def read_visit(run_id: str, row: Row) -> VisitRow:
    """The visit in a row of `VISIT_FIELDS`.

    Raises:
        CorruptRecordError: A value is invalid for its column.
    """
    try:
        visit = VisitRow(*row)  # type: ignore[arg-type]
        _decode_past_visit(visit)
        visit.completed_at = parse_timestamp(visit.completed_at)
        visit.seq = int(visit.seq)  # SQLite stores any text in a column of integers
        visit.ends_item = bool(visit.ends_item)
        visit.records_events = bool(visit.records_events)
    except _DECODE_ERRORS:
        return VisitRow(**_decode_visit_columns(run_id, row, VISIT_FIELDS))  # type: ignore[arg-type]
    return visit


def read_past_visit(run_id: str, row: Row) -> PastVisit:
    """The visit in a row of `PAST_FIELDS`.

    Raises:
        CorruptRecordError: A value is invalid for its column.
    """
    try:
        visit = PastVisit(*row)  # type: ignore[arg-type]
        _decode_past_visit(visit)
    except _DECODE_ERRORS:
        return PastVisit(**_decode_visit_columns(run_id, row, PAST_FIELDS))  # type: ignore[arg-type]
    return visit


def _decode_past_visit(visit: PastVisit) -> None:
    """Decode the columns of the database in place; three times as fast as `_decode_visit_columns`."""
    visit.step_type = _STEP_TYPES[visit.step_type]
    visit.status = _STEP_STATES[visit.status]
    visit.started_at = parse_timestamp(visit.started_at)


_DECODE_ERRORS = (ValueError, TypeError, KeyError)
"""After one of these errors the row is decoded again column by column, so that the message names the column."""


def _decode_visit_columns(run_id: str, row: Row, columns: Sequence[str]) -> dict[str, object]:
    decoder = _RowDecoder(steps, run_id, row, columns)
    for column, decode in _VISIT_DECODERS.items():
        if column in decoder.values:
            decoder.decode(column, decode)
    return decoder.values


_STEP_TYPES: dict[str, StepType] = {each.value: each for each in StepType}
_STEP_STATES: dict[str, StepStatus] = {each.value: each for each in StepStatus}


def read_event(run_id: str, row: Row) -> EventRow:
    """The event in a row of `EVENT_COLUMNS`.

    Raises:
        CorruptRecordError: A value is invalid for its column.
    """
    decoder = _RowDecoder(event_log, run_id, row, EVENT_COLUMNS)
    decoder.values.pop("run", None)
    decoder.decode("timestamp", parse_timestamp)
    return EventRow(**decoder.values)  # type: ignore[arg-type]


class _RowDecoder:
    """Decodes a row by column name, and names the column in its errors."""

    __slots__ = ("_run_id", "_table", "values")

    def __init__(self, table: Table, run_id: str, row: Row, columns: Sequence[str]) -> None:
        self._table = table
        self._run_id = run_id
        self.values = dict(zip(columns, row, strict=True))

    def decode(self, column: str, convert: Callable[[Any], object]) -> None:
        try:
            self.values[column] = convert(self.values[column])
        except (ValueError, TypeError) as exc:
            raise CorruptRecordError(
                f"run {self._run_id!r}: column {column!r} of {self._table.name} has a value that cannot be decoded; "
                "restore the row from a backup, or delete the run"
            ) from exc


def parse_timestamp(value: object) -> datetime:
    """The timestamp in a column.

    Raises:
        ValueError: The text is no timestamp, or has no time zone.
    """
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)  # type: ignore[arg-type]
    if at.tzinfo is None:
        raise ValueError("the timestamp has no time zone")
    return at


_VISIT_DECODERS: Mapping[str, Callable[[Any], object]] = {
    "seq": int,
    "started_at": parse_timestamp,
    "completed_at": parse_timestamp,
    "step_type": StepType,
    "status": StepStatus,
    "ends_item": bool,
    "records_events": bool,
}


def columns_of(table: Table, names: Sequence[str]) -> list[Column[object]]:
    """The columns with these names, in the given order."""
    return [table.c[name] for name in names]
