"""Messages for runs as functions of an asyncpg connection."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.due import Delivery, Message, NewMessage, Notice
from spine_async._model.run_claim import Claim
from spine_async._model.status import RunStatus
from spine_async.storage.sql.postgres.statements import IS_HELD, PATIENCE
from spine_async.storage.sql.schema.rows import parse_timestamp

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_RUN = (
    "SELECT r.id, r.status, "
    "EXISTS (SELECT 1 FROM core_workflow_inbox i WHERE i.run = r.id AND i.token = $5) AS was_sent, "
    "EXISTS (SELECT 1 FROM core_workflow_inbox i WHERE i.run = r.id AND i.idempotency_key = $6) AS has_key "
    "FROM core_workflow_runs r WHERE r.run_id = $1"
)
_SEND = (
    "WITH {patience}run AS (" + _RUN + "), "
    "sent AS (INSERT INTO core_workflow_inbox (run, name, value, received_at, token, idempotency_key) "
    "SELECT run.id, $2::text, $3::text, $4::timestamptz, $5::text, $6::text FROM run {join} "
    "WHERE run.status <> 'completed' AND NOT run.was_sent AND NOT run.has_key ON CONFLICT DO NOTHING RETURNING id) "
    "SELECT run.*, EXISTS (SELECT 1 FROM sent) AS is_stored FROM run"
)
_SEND_ALONE = _SEND.format(patience=f"{PATIENCE}, ", join="CROSS JOIN patience")
"""Arguments: run, name, value, time, token, idempotency key. It changes no row of a run, and locks none.

The insertion waits for a short time if another transaction has inserted a message with the same key.
"""
_SEND_WITHIN = _SEND.format(patience="", join="")
"""The same without a limit of the wait, which would last for the rest of the transaction of the caller."""

# The condition on `ANY` is implied by the join. It lets a plan without the arguments read the runs by their key.
_OPEN = (
    "SELECT r.id AS run, r.stop_requested, i.id, i.name, i.value, i.received_at "
    "FROM unnest($1::bigint[], $2::integer[]) AS c(id, epoch) "
    f"JOIN core_workflow_runs r ON r.id = c.id AND r.epoch = c.epoch AND {IS_HELD} "
    "LEFT JOIN core_workflow_inbox i ON i.run = r.id AND NOT i.taken "
    "WHERE r.id = ANY($1::bigint[]) AND (r.stop_requested IS NOT NULL OR i.id IS NOT NULL) ORDER BY r.id, i.id"
)


async def send(driver: Driver, message: NewMessage, *, is_within: bool = False) -> Delivery:
    """Store the message; `is_within` a transaction of a caller."""
    statement = _SEND_WITHIN if is_within else _SEND_ALONE
    columns = (message.name, message.value, message.received_at, message.token, message.idempotency_key)
    for _ in range(2):
        record = await driver.fetchrow(statement, message.run_id, *columns)
        if record is None:
            return Delivery.NOT_FOUND
        if record["is_stored"] or record["was_sent"]:
            return Delivery.STORED
        if record["has_key"]:
            return Delivery.DUPLICATE
        if record["status"] == RunStatus.COMPLETED:
            return Delivery.ENDED
        # A message with the same key or token was committed during the statement; the next one sees it.
    return Delivery.DUPLICATE


async def notices(driver: Driver, claims: Sequence[Claim]) -> list[Notice]:
    """The requested stop and the open messages of each claim that is current and has either."""
    rows = await driver.fetch(_OPEN, [each.key for each in claims], [each.epoch for each in claims])
    ids = {each.key: each.run_id for each in claims}
    stops = {row["run"]: row["stop_requested"] for row in rows}
    messages: dict[int, list[Message]] = {key: [] for key in stops}
    for row in rows:
        if row["id"] is not None:
            at = parse_timestamp(row["received_at"])
            messages[row["run"]].append(Message(row["id"], row["name"], row["value"], at))
    return [Notice(ids[key], reason, tuple(messages[key])) for key, reason in stops.items()]
