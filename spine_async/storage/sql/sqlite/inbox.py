"""Messages for runs as functions of a plain `sqlite3.Connection`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from spine_async._model.due import Delivery, Message, NewMessage, Notice
from spine_async._model.run_claim import Claim
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
# Two statements for all claims. Neither reads the rows of runs without a notice, because the index of requested stops
# and that of open messages are small.
_STOPS = (
    "SELECT id, epoch, stop_requested FROM core_workflow_runs INDEXED BY core_workflow_runs_stop_requested "  # noqa: S608
    f"WHERE stop_requested IS NOT NULL AND {IS_HELD}"
)
_OPEN = (
    "SELECT i.run, r.epoch, i.id, i.name, i.value, i.received_at FROM json_each(?) k "  # noqa: S608
    "CROSS JOIN core_workflow_inbox i ON i.run = k.value CROSS JOIN core_workflow_runs r ON r.id = i.run "
    f"WHERE NOT i.taken AND r.{IS_HELD.replace(' owner', ' r.owner')} ORDER BY i.id"
)


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
    """The requested stop and the open messages of each claim that is current and has either."""
    claimed = {(each.key, each.epoch): each.run_id for each in claims}
    stops = {(row[0], row[1]): str(row[2]) for row in fetch(connection, _STOPS)}
    messages: dict[object, list[Message]] = {}
    for run, epoch, key, name, value, received_at in fetch(connection, _OPEN, (_listed(claims),)):
        found = Message(int(str(key)), str(name), str(value), parse_timestamp(received_at))
        messages.setdefault((run, epoch), []).append(found)
    return [
        Notice(run_id, stops.get(claim), tuple(messages.get(claim, ())))
        for claim, run_id in claimed.items()
        if claim in stops or claim in messages
    ]


def _listed(claims: Sequence[Claim]) -> str:
    """The keys of the runs as a JSON array, each once."""
    return f"[{','.join({str(each.key) for each in claims})}]"
