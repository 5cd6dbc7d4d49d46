"""Forks of runs as functions of an asyncpg connection."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.fork import ForkOutcome, NewFork
from spine_async.storage.sql.postgres import leases
from spine_async.storage.sql.schema.fork_columns import copy_events, copy_visits
from spine_async.storage.sql.schema.postgres_types import EVENT, STEP, RowType
from spine_async.storage.sql.schema.rows import event_values, unchanged_timestamp, visit_values

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

# The lock keeps the run from being deleted while its rows are copied. It does not hinder the commits of its owner.
_SOURCE = "SELECT id FROM core_workflow_runs WHERE run_id = $1 AND created_at = $2 FOR KEY SHARE"
_MARK = (
    "UPDATE core_workflow_runs SET next_seq = $1, forked_from = $2 WHERE id = $3 AND forked_from IS NULL RETURNING 1"
)
# The edits are part of the copy, because the user of the database need not have the privilege to update visits.
_EDITS = "unnest($4::text[], $5::text[], $6::integer[]) AS e(path, output, size)"
_COPY_VISITS = copy_visits("$1::bigint", "$2::bigint", "$3::integer", _EDITS)
_COPY_EVENTS = copy_events("$1::bigint", "$2::bigint", "$3::integer")


def _insert(table: str, row: RowType) -> str:
    return f"INSERT INTO {table} ({row.names}) VALUES ({', '.join(row.arguments(1))})"


_INSERT_STEP = _insert("core_workflow_steps", STEP)
_INSERT_EVENT = _insert("core_workflow_event_log", EVENT)


async def fork(driver: Driver, new: NewFork) -> ForkOutcome | None:
    """Store the new run with the copied rows.

    Returns:
        None if an open transaction decides whether the id is taken.
    """
    async with driver.transaction(isolation="read_committed"):
        source = await driver.fetchval(_SOURCE, new.source_id, new.source_created_at)
        if source is None:
            return ForkOutcome.NOT_FOUND
        claims = await leases.create(driver, [new.run])
        if claims is None:
            return None  # the failed statement has aborted the transaction
        (claim,) = claims
        if claim is None:
            return ForkOutcome.TAKEN
        if await driver.fetchval(_MARK, new.next_seq, new.source_id, claim.key) is not None:
            texts = list(new.outputs.values())
            edits = (list(new.outputs), texts, [len(text.encode()) for text in texts])
            await driver.execute(_COPY_VISITS, claim.key, source, new.until, *edits)
            await driver.execute(_COPY_EVENTS, claim.key, source, new.until)
            await _add_rows(driver, claim.key, new)
    return ForkOutcome.FORKED


async def _add_rows(driver: Driver, key: int, new: NewFork) -> None:
    """Add the row and the event that follow the copied ones."""
    seq = new.until + 1
    if new.override is not None:
        values = visit_values(key, replace(new.override, seq=seq), unchanged_timestamp, bool)
        await driver.execute(_INSERT_STEP, *values)
    if new.event is not None:
        await driver.execute(_INSERT_EVENT, *event_values(key, replace(new.event, seq=seq), unchanged_timestamp))
