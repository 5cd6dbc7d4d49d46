"""Schedules as functions of an asyncpg connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeAlias

from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async.storage.sql.postgres import leases
from spine_async.storage.sql.schema.rows import unchanged_timestamp
from spine_async.storage.sql.schema.schedule_rows import (
    READ_SCHEDULES,
    change_statement,
    change_values,
    new_values,
    read_schedules,
    register_statement,
)

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_REGISTER = register_statement([f"${number}" for number in range(1, 9)], "greatest", "IS DISTINCT FROM")
_TYPES = ("timestamptz", "boolean", "text", "text", "timestamptz", "text", "integer")
_CHANGE = change_statement([f"${number}::{kind}" for number, kind in enumerate(_TYPES, 1)], "1")
_READ = f'{READ_SCHEDULES} WHERE $1::text[] IS NULL OR s.name = ANY($1) ORDER BY s.name COLLATE "C"'


async def register(driver: Driver, schedules: Sequence[NewSchedule]) -> None:
    """Store the definitions."""
    ordered = sorted(schedules, key=lambda each: each.name)  # so that processes which start together lock in one order
    await driver.executemany(_REGISTER, [new_values(each, unchanged_timestamp) for each in ordered])


async def read(driver: Driver, names: Collection[str] | None) -> list[StoredSchedule]:
    """The stored schedules."""
    rows = await driver.fetch(_READ, None if names is None else sorted(names))
    return read_schedules(tuple(row) for row in rows)


async def change(driver: Driver, given: ScheduleChange) -> bool | None:
    """Change a schedule and store its run.

    Returns:
        None if an open transaction decides whether the id of the run is taken; nothing is stored then.
    """
    async with driver.transaction(isolation="read_committed"):
        if await driver.fetchval(_CHANGE, *change_values(given, unchanged_timestamp, bool)) is None:
            return False
        if given.run is not None and await leases.create(driver, [given.run]) is None:
            return None  # the failed statement has aborted the transaction
    return True
