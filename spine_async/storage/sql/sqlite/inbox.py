"""Messages for runs as functions of a plain `sqlite3.Connection`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from spine_async._model.due import Delivery, Message, NewMessage, Notice
from spine_async._model.record import Claim
from spine_async._model.status import RunStatus
from spine_async.storage.sql.schema.rows import iso_timestamp, parse_timestamp
from spine_async.storage.sql.sqlite.changes import IS_HELD
from spine_async.storage.sql.sqlite.jobs import fetch

_RUN = "SELECT id, status FROM core_workflow_runs WHERE run_id = ?"
_SENT_EARLIER = "SELECT 1 FROM core_workflow_inbox WHERE run = ? AND token = ?"
_HAS_KEY = "SELECT 1 FROM core_workflow_inbox WHERE run = ? AND idempotency_key = ?"
_INSERT = (
    "INSERT INTO core_workflow_inbox (run, name, value, received_at, idempotency_key, token, taken, unseen) "
    "VALUES (?, ?, ?, ?, ?, ?, 0, 1)"
)
_STOP = f"SELECT stop_requested FROM core_workflow_runs WHERE id = ? AND epoch = ? AND {IS_HELD}"  # noqa: S608
_OPEN = "SELECT id, name, value, received_at FROM core_workflow_inbox WHERE run = ? AND NOT taken ORDER BY id"


def send(connection: sqlite3.Connection, message: NewMessage) -> Delivery:
    """Store the message, in a write transaction."""
    rows = fetch(connection, _RUN, (message.run_id,))
    if not rows:
        return Delivery.NOT_FOUND
    key, status = rows[0]
    if fetch(connection, _SENT_EARLIER, (key, message.token)):
        return Delivery.STORED
    if message.idempotency_key is not None and fetch(connection, _HAS_KEY, (key, message.idempotency_key)):
        return Delivery.DUPLICATE
    if status == RunStatus.COMPLETED:
        return Delivery.ENDED
    received_at = iso_timestamp(message.received_at)
    values = (key, message.name, message.value, received_at, message.idempotency_key, message.token)
    connection.execute(_INSERT, values)
    return Delivery.STORED


def notices(connection: sqlite3.Connection, claims: Sequence[Claim]) -> list[Notice]:
    """The requested stop and the open messages of each claim that is current."""
    return [notice for claim in claims for notice in _notices_of(connection, claim)]


def _notices_of(connection: sqlite3.Connection, claim: Claim) -> list[Notice]:
    rows = fetch(connection, _STOP, (claim.key, claim.epoch))
    if not rows:
        return []
    (reason,) = rows[0]
    messages = tuple(
        Message(int(str(key)), str(name), str(value), parse_timestamp(received_at))
        for key, name, value, received_at in fetch(connection, _OPEN, (claim.key,))
    )
    return [Notice(claim.run_id, None if reason is None else str(reason), messages)]
