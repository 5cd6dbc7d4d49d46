"""Rows as Redis stores them.

A visit is a line of JSON with its number in front, and its values: their JSON texts as they are, one after the other.
The line contains their lengths. So events and listings are read without the values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.run_filter import DOCUMENTS
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.visit_row import EventRow, VisitRow
from spine_async.errors import StoreError
from spine_async.storage.form import from_form, to_form
from spine_async.storage.redis.keys import Keys, hashed

Pairs = list[tuple[str, str]]

MAX_BYTES = 512 * 1024 * 1024
"""The largest value that a Redis server accepts in its default settings."""

_VALUES = ("output", "updates", "quality", "item_params", "appends")
_TEXTS = ("status", "owner", "error_step", "error", "error_category", "stop_reason", "stop_requested", "traceparent")
_TIMES = ("started_at", "updated_at", "completed_at", "due_at")
_NUMBERS = {"epoch": "epoch", "next_seq": "next_seq", "key": "key", "claims_since_progress": "claims"}
_CHANGING = ("status", "owner", "epoch", "next_seq", "key", "claims", "lease", *_TEXTS[2:], *_TIMES)
_FIXED = "run"

FIELDS = (_FIXED, *_CHANGING)
"""The fields of a run that a listing reads."""
ALL_FIELDS = (*FIELDS, *DOCUMENTS)

_SEPARATORS = (",", ":")


def encoded(text: str) -> bytes:
    """The bytes that are stored for a text."""
    return text.encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> str:
    """The text of stored bytes."""
    return data.decode("utf-8", "surrogatepass")


def run_fields(new: NewRun, keys: Keys) -> Pairs:
    """The fields of a new run that its script does not compute."""
    run = StoredRun.from_new(new)
    form = to_form(run)
    changing = {name: form.pop(name, None) for name in (*_TEXTS, *_TIMES, *_NUMBERS)}
    documents = [(name, str(form.pop(name, getattr(run, name)))) for name in DOCUMENTS]
    fields = [(name, str(value)) for name, value in changing.items() if value is not None and name not in _NUMBERS]
    parent = [("parent", keys.run(run.parent_run_id))] if run.parent_run_id is not None else []
    fixed = (_FIXED, json.dumps(form, ensure_ascii=False, separators=_SEPARATORS))
    return [fixed, *(each for each in fields if each[0] != "status"), *documents, *parent]


def read_run(names: Sequence[str], values: Sequence[bytes | None], now_ms: int, run_id: str | None = None) -> StoredRun:
    """The run with these fields.

    Args:
        names: Names of the fields, `FIELDS` or `ALL_FIELDS`.
        values: Their values.
        now_ms: Milliseconds since 1970 by the clock of the server.
        run_id: The run, if it is known, for messages.

    Raises:
        CorruptRecordError: A field is missing or cannot be decoded.
    """
    found = {name: decoded(value) for name, value in zip(names, values, strict=True) if value is not None}
    with CorruptionGuard(run_id or "with unknown id"):
        fixed = json.loads(found[_FIXED])
        run_id = str(fixed["run_id"])
    with CorruptionGuard(run_id):
        numbers = {name: int(found[stored]) for name, stored in _NUMBERS.items()}
        texts = {name: found.get(name) for name in (*_TEXTS, *_TIMES)}
        documents = {name: found.get(name, "") for name in DOCUMENTS}
        run = from_form(StoredRun, {**fixed, **numbers, **texts, **documents})
        is_under_way = run.owner is not None and not run.status.is_final
        run.is_leased = is_under_way and int(found["lease"]) > now_ms
        return run


def visit_member(visit: VisitRow) -> tuple[str, bytes]:
    """The line and the values of a visit.

    Raises:
        StoreError: The values are larger than a server accepts.
    """
    form = to_form(visit)
    values = {name: encoded(form.pop(name)) for name in _VALUES if form.get(name) is not None}
    lengths = {name: len(value) for name, value in values.items()}
    form.pop("seq", None)
    blob = b"".join(values.values())
    if len(blob) > MAX_BYTES:
        raise StoreError(
            f"the visit {visit.path} has {len(blob):,} bytes, more than the {MAX_BYTES:,} of a Redis value"
        )
    return _line(visit.seq, {**form, "values": lengths}), blob


def read_visit(run_id: str, line: bytes, blob: bytes) -> VisitRow:
    """The visit with this line and these values.

    Raises:
        CorruptRecordError: It cannot be decoded.
    """
    with CorruptionGuard(run_id):
        seq, form = _parsed(line)
        start = 0
        for name in _VALUES:
            form.setdefault(name, None)
        for name, length in form.pop("values").items():
            form[name] = decoded(blob[start : start + length])
            start += length
        if start != len(blob):
            raise ValueError("the values have another length")
        return from_form(VisitRow, {**form, "seq": seq})


def read_visit_line(run_id: str, line: bytes) -> VisitRow:
    """The visit with this line, without its values."""
    with CorruptionGuard(run_id):
        seq, form = _parsed(line)
        form.pop("values")
        return from_form(
            VisitRow, {**form, "output": None, "updates": None, "quality": None, "item_params": None, "seq": seq}
        )


def seq_of(line: bytes) -> int:
    """The number of a line."""
    return int(line.partition(b" ")[0])


def event_line(event: EventRow) -> str:
    """The JSON of an event, without its number."""
    form = to_form(event)
    form.pop("seq", None)
    return json.dumps(form, ensure_ascii=False, separators=_SEPARATORS)


def event_member(event: EventRow) -> str:
    """The line of an event."""
    return f"{event.seq} {event_line(event)}"


def read_event(run_id: str, line: bytes) -> EventRow:
    """The event with this line.

    Raises:
        CorruptRecordError: It cannot be decoded.
    """
    with CorruptionGuard(run_id):
        seq, form = _parsed(line)
        return from_form(EventRow, {**form, "seq": seq})


def time_of(milliseconds: bytes) -> datetime:
    """The time of a number of milliseconds since 1970."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def workflow_of(new: NewRun) -> str:
    """The name of the indexes of the run's workflow."""
    return hashed(new.workflow_name)


def _line(seq: int, form: dict[str, Any]) -> str:
    return f"{seq} {json.dumps(form, ensure_ascii=False, separators=_SEPARATORS)}"


def _parsed(line: bytes) -> tuple[int, dict[str, Any]]:
    number, _, text = line.partition(b" ")
    form = json.loads(decoded(text))
    if not isinstance(form, dict):
        raise TypeError("a row is no object")
    return int(number), form
