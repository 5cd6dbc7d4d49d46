"""Forks of runs as functions of an asyncpg connection."""

# ruff: noqa: S608 (statements are built from constants of this package only)

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.fork import ForkOutcome, NewFork
from spine_async.storage.sql.postgres import leases
from spine_async.storage.sql.schema.fork_columns import copy_statements
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
_COPIES = copy_statements("$1::bigint", "$2::bigint", "$3::integer")
_REPLACE = "UPDATE core_workflow_steps SET output = $1, output_size = $2 WHERE run = $3 AND path = $4"


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
            for statement in _COPIES:
                await driver.execute(statement, claim.key, source, new.until)
            await _write_edits(driver, claim.key, new)
    return ForkOutcome.FORKED


async def _write_edits(driver: Driver, key: int, new: NewFork) -> None:
    """Replace copied outputs, and add the row and the event that follow the copied ones."""
    for path, text in new.outputs.items():
        await driver.execute(_REPLACE, text, len(text.encode()), key, path)
    seq = new.until + 1
    if new.override is not None:
        values = visit_values(key, replace(new.override, seq=seq), unchanged_timestamp, bool)
        await driver.execute(_INSERT_STEP, *values)
    if new.event is not None:
        await driver.execute(_INSERT_EVENT, *event_values(key, replace(new.event, seq=seq), unchanged_timestamp))
