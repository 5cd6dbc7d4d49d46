"""A PostgreSQL database through asyncpg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

import asyncpg
from sqlalchemy import Dialect
from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async._model.durability import Durability
from spine_async._model.record import Busy, Claim, NewRun, Renewal, RunChange
from spine_async.ports import CommitOutcome
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.compiled import CompiledQueries
from spine_async.storage.sql.driver.connection import DriverHabits, Job, Lender, ResultT
from spine_async.storage.sql.driver.retry import insist
from spine_async.storage.sql.postgres import leases, statements
from spine_async.storage.sql.postgres.errors import is_passing_on_postgres, postgres_faults
from spine_async.storage.sql.schema.migrations import is_current, statements_from
from spine_async.storage.sql.schema.queries import Query
from spine_async.storage.sql.schema.rows import Row, event_values, same_moment, storable, visit_values

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]


class PostgresDatabase:
    """Speaks to the driver itself, without SQLAlchemy's transaction around each call: one round trip each."""

    dialect = "postgresql"
    is_bound_to_loop = True
    commits_out_of_process = True

    def __init__(self, engine: AsyncEngine, *, makes_folder: bool = False, durability: Durability = "full") -> None:
        self._engine = engine
        self._compiled = CompiledQueries(engine.dialect)
        self._faults = postgres_faults(engine.url)
        self._lender: Lender[Driver] = Lender(engine, DriverHabits(_is_usable, _nothing, _nothing))

    async def exists(self) -> bool:
        return True

    async def make_place(self) -> None:
        """Nothing: the server has a place for the database."""

    async def version(self) -> int:
        with self._faults:  # once: whoever opens the database with a wrong address is told at once
            return await self._lender.read(_version_if_there)

    async def upgrade(self) -> None:
        await self._insist(lambda driver: _upgrade(driver, self._engine.dialect))

    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]:
        text, bound = self._compiled.bind(query, values)

        async def job(driver: Driver) -> list[Row]:
            return cast("list[Row]", await driver.fetch(text, *bound))  # which a record is, but for its type

        with self._faults:
            return await insist(lambda: self._lender.read(job), is_passing_on_postgres)

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        if not runs:
            return []
        return await self._insist(lambda driver: leases.create(driver, runs))

    async def claim(self, asked: ClaimRequest) -> Claim | Busy | None:
        return await self._insist(lambda driver: leases.claim(driver, asked))

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        return await self._insist(lambda driver: leases.renew(driver, claims, ttl))

    async def request_stop(self, run_id: str, reason: str) -> bool:
        return await self._insist(lambda driver: leases.request_stop(driver, run_id, reason))

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        if not changes:
            return []
        return await self._insist(lambda driver: _commit(driver, changes))

    async def delete(self, run_id: str) -> bool:
        return await self._write(lambda driver: driver.fetchval(statements.DELETE, run_id)) is not None

    async def close(self) -> None:
        with self._faults:
            await self._lender.close()

    async def _insist(self, job: Job[Driver, ResultT]) -> ResultT:
        """Write, and once more while what goes wrong passes."""
        with self._faults:
            return await insist(lambda: self._lender.write(job), is_passing_on_postgres)

    async def _write(self, job: Job[Driver, ResultT]) -> ResultT:
        with self._faults:
            return await self._lender.write(job)


async def _commit(driver: Driver, changes: Sequence[RunChange]) -> list[CommitOutcome]:
    text, arguments = _commit_call(changes)
    keys = {record["id"] for record in await driver.fetch(text, *arguments)}
    refused = [each for each in changes if each.key not in keys]
    if refused:  # superseded, or an earlier try had been written and its answer was lost
        marks = zip(*((each.key, each.epoch, each.commit_id) for each in refused), strict=True)
        keys.update(record["id"] for record in await driver.fetch(statements.WRITTEN_BEFORE, *marks))
    return [CommitOutcome.COMMITTED if each.key in keys else CommitOutcome.FENCED for each in changes]


def _commit_call(changes: Sequence[RunChange]) -> tuple[str, list[object]]:
    """The statement and its arguments."""
    # In the order of their keys, so that two writers lock the rows of runs in the same order.
    ordered = sorted(changes, key=lambda change: change.key)
    visits = [visit_values(change.key, visit, same_moment, bool) for change in ordered for visit in change.visits]
    events = [event_values(change.key, event, same_moment) for change in ordered for event in change.events]
    moved = list(map(_change_values, ordered))
    is_single = len(moved) == 1 and len(visits) <= 1 and len(events) <= 1
    text = statements.commit_statement(statements.CommitShape(is_single, bool(visits), bool(events)))
    if is_single:
        return text, [value for row in (*moved, *visits, *events) for value in row]
    return text, [rows for rows in (moved, visits, events) if rows]


def _change_values(change: RunChange) -> tuple[object, ...]:
    fence = (change.key, change.epoch, change.expected_seq, change.next_seq)
    mark = (change.commit_id, change.makes_progress)
    end = change.end
    if end is None:
        return (*fence, *mark, change.status.value, change.at, None, None, None, None, None)
    told = (end.error_step, storable(end.error), end.error_category, storable(end.stop_reason))
    return (*fence, *mark, end.status.value, change.at, end.at, *told)


async def _version(driver: Driver) -> int:
    if not await driver.fetchval(statements.EXISTS):
        return 0
    return int(await driver.fetchval(statements.VERSION) or 0)


async def _version_if_there(driver: Driver) -> int:
    """The version, asked for at once; not within a transaction, which an error would end."""
    try:
        return int(await driver.fetchval(statements.VERSION) or 0)
    except asyncpg.UndefinedTableError:
        return 0


async def _upgrade(driver: Driver, dialect: Dialect) -> None:
    # Whatever the database's default is: who waited for the lock must see what was done meanwhile.
    async with driver.transaction(isolation="read_committed"):
        # Many processes may start at once: the first upgrades, the others find it done.
        await driver.execute(statements.LOCK)
        await driver.execute(statements.STAY_IN_SCHEMA)
        found = await _version(driver)
        if not is_current(found, auto_migrate=True):
            for statement in statements_from(found, dialect):
                await driver.execute(statement)


def _is_usable(driver: Driver) -> bool:
    return not driver.is_closed()


async def _nothing(driver: Driver) -> None:
    return None
