"""A PostgreSQL database through asyncpg."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from sqlalchemy import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async._model.record import Claim, EventRow, NewRun, RunChange
from spine_async.ports import CommitOutcome
from spine_async.storage.expansion import started_event
from spine_async.storage.sql import postgres_statements as statements
from spine_async.storage.sql.address import shown
from spine_async.storage.sql.compiled import CompiledQueries
from spine_async.storage.sql.connection import DriverHabits, Job, Lender, ResultT
from spine_async.storage.sql.migrations import is_current, statements_from
from spine_async.storage.sql.postgres_fault import postgres_faults
from spine_async.storage.sql.queries import Query
from spine_async.storage.sql.rows import Row, event_values, new_run_values, same_moment, storable, visit_values

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]


class PostgresDatabase:
    """Speaks to the driver itself, without SQLAlchemy's transaction around each call: one round trip each."""

    is_bound_to_loop = True

    def __init__(self, engine: AsyncEngine, *, makes_folder: bool = False) -> None:
        self._engine = engine
        self._compiled = CompiledQueries(engine.dialect)
        self._lender: Lender[Driver] = Lender(engine, DriverHabits(_is_usable, _nothing, _nothing))

    async def exists(self) -> bool:
        return True

    async def make_place(self) -> None:
        """Nothing: the server has a place for the database."""

    async def version(self) -> int:
        return await self._read(_version)

    async def upgrade(self) -> None:
        await self._write(partial(_upgrade, dialect=self._engine.dialect))

    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]:
        text, bound = self._compiled.bind(query, values)

        async def job(driver: Driver) -> list[Row]:
            return [tuple(record) for record in await driver.fetch(text, *bound)]

        return await self._read(job)

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        if not runs:
            return []
        first = {run.run_id: run for run in reversed(runs)}  # an id given twice is taken the second time
        values = [(*new_run_values(run, same_moment), _started(run)) for run in first.values()]
        made = await self._write(lambda driver: driver.fetch(statements.CREATE, *_columns(values)))
        keys: dict[str, int] = {record["run_id"]: record["id"] for record in made}
        return [_claim(run, keys.pop(run.run_id, None)) for run in runs]

    async def claim(self, run_id: str, owner: str, event: EventRow | None) -> Claim | None:
        at = event.timestamp if event is not None else datetime.now(UTC)
        told = (None,) * 4
        if event is not None:
            told = (str(event.event_type), event.step_name, event.path, event.metadata)  # type: ignore[assignment]
        taken = await self._write(lambda driver: driver.fetchrow(statements.CLAIM, run_id, owner, at, *told))
        return Claim(run_id, taken["id"], taken["epoch"], taken["next_seq"]) if taken is not None else None

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        if not changes:
            return []
        text, arguments = _commit_call(changes)
        written = await self._write(lambda driver: driver.fetch(text, *arguments))
        keys = {record["id"] for record in written}
        return [CommitOutcome.COMMITTED if each.key in keys else CommitOutcome.FENCED for each in changes]

    async def delete(self, run_id: str) -> bool:
        return await self._write(lambda driver: driver.fetchval(statements.DELETE, run_id)) is not None

    async def close(self) -> None:
        with self._faults():
            await self._lender.close()

    async def _write(self, job: Job[Driver, ResultT]) -> ResultT:
        with self._faults():
            return await self._lender.write(job)

    async def _read(self, job: Job[Driver, ResultT]) -> ResultT:
        with self._faults():
            return await self._lender.read(job)

    def _faults(self) -> AbstractContextManager[None]:
        return postgres_faults(shown(self._engine.url))


def _commit_call(changes: Sequence[RunChange]) -> tuple[str, list[object]]:
    """The statement and its arguments."""
    # In the order of their keys, so that two writers lock the rows of runs in the same order.
    ordered = sorted(changes, key=lambda change: change.key)
    visits = [visit_values(change.key, visit, same_moment) for change in ordered for visit in change.visits]
    events = [event_values(change.key, event, same_moment) for change in ordered for event in change.events]
    moved = list(map(_change_values, ordered))
    is_single = len(moved) == 1 and len(visits) <= 1 and len(events) <= 1
    text = statements.commit_statement(statements.CommitShape(is_single, bool(visits), bool(events)))
    if is_single:
        return text, [value for row in (*moved, *visits, *events) for value in row]
    return text, [*_columns(moved), *_columns(visits), *_columns(events)]


def _change_values(change: RunChange) -> tuple[object, ...]:
    fence = (change.key, change.epoch, change.expected_seq, change.next_seq, change.commit_id)
    end = change.end
    if end is None:
        return (*fence, change.status.value, change.at, None, None, None, None, None)
    told = (end.error_step, storable(end.error), end.error_category, storable(end.stop_reason))
    return (*fence, end.status.value, change.at, end.at, *told)


def _columns(rows: Iterable[tuple[object, ...]]) -> list[object]:
    return list(zip(*rows, strict=True))


def _started(run: NewRun) -> str | None:
    return started_event(run).metadata if run.emits else None


def _claim(run: NewRun, key: int | None) -> Claim | None:
    return Claim(run.run_id, key, epoch=1, next_seq=2 if run.emits else 1) if key is not None else None


async def _version(driver: Driver) -> int:
    if not await driver.fetchval(statements.EXISTS):
        return 0
    return int(await driver.fetchval(statements.VERSION) or 0)


async def _upgrade(driver: Driver, dialect: Dialect) -> None:
    async with driver.transaction():
        # Many processes may start at once: the first upgrades, the others find it done.
        await driver.execute(statements.LOCK)
        found = await _version(driver)
        if not is_current(found, auto_migrate=True):
            for statement in statements_from(found, dialect):
                await driver.execute(statement)


def _is_usable(driver: Driver) -> bool:
    return not driver.is_closed()


async def _nothing(driver: Driver) -> None:
    return None
