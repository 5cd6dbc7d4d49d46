"""A PostgreSQL database through asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

import asyncpg
from sqlalchemy import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from spine_async._model.durability import Durability
from spine_async._model.record import Busy, Claim, NewRun, Renewal, RunChange
from spine_async.errors import StoreError
from spine_async.ports import CommitOutcome, RunIdLockedError
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.compiled import CompiledQueries
from spine_async.storage.sql.driver.connection import (
    ConnectionPool,
    DriverHooks,
    Job,
    ResultT,
    WriterConnection,
    foreign_loop,
)
from spine_async.storage.sql.driver.time_limit import DEFAULT_SECONDS, UPGRADE_SECONDS, Call, TimeLimit
from spine_async.storage.sql.driver.url import redacted
from spine_async.storage.sql.postgres import leases, statements
from spine_async.storage.sql.postgres.errors import (
    is_rejected_statement,
    is_transient_on_postgres,
    postgres_error_mapper,
)
from spine_async.storage.sql.schema.migrations import is_current, raise_if_upgraded, statements_from, usable_version
from spine_async.storage.sql.schema.queries import Query
from spine_async.storage.sql.schema.rows import Row, escaped_text, event_values, unchanged_timestamp, visit_values

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]


class PostgresDatabase:
    """Calls asyncpg directly: one round trip per operation, without SQLAlchemy's transaction around it."""

    dialect = "postgresql"
    is_bound_to_loop = True
    commits_out_of_process = True

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        makes_folder: bool = False,
        durability: Durability = "full",
        timeout: float = DEFAULT_SECONDS,
    ) -> None:
        self._engine = engine
        self._limit = TimeLimit(redacted(engine.url), timeout)
        self._locked: set[int] = set()  # keys of runs whose rows were locked at their last commit
        self._compiled = CompiledQueries(engine.dialect)
        self._map_errors = postgres_error_mapper(engine.url)
        hooks: DriverHooks[Driver] = DriverHooks(
            is_usable=_is_usable,
            prepare=_no_op,
            restore=_no_op,
            accept=_accept,
            check_owner=_check_owner,
            abandon=AsyncConnection.close,
            abort=_abort,
        )
        self._pool = ConnectionPool(engine, hooks)
        self._writer = WriterConnection(self._pool, hooks)
        self._renewer = WriterConnection(self._pool, hooks)  # so that renewals never wait for a commit

    async def exists(self) -> bool:
        return True

    async def create_file(self) -> None:
        """Do nothing; the server manages the database's files."""

    async def version(self) -> int:
        with self._map_errors:  # without retries, so that a wrong URL is reported at once
            return await self._pool.read(_version_outside_transaction, self._limit.call("connect"))

    async def upgrade(self) -> None:
        call = Call("upgrade", self._limit, UPGRADE_SECONDS)
        await self._write_with_retries(lambda driver: _upgrade(driver, self._engine.dialect), call)

    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]:
        text, bound = self._compiled.bind(query, values)

        async def job(driver: Driver) -> list[Row]:
            return cast("list[Row]", await driver.fetch(text, *bound))  # a Record behaves as a sequence

        return await self._with_retries(partial(self._pool.read, job), self._limit.call("read"))

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        if not runs:
            return []
        claims = await self._write_with_retries(lambda driver: leases.create(driver, runs), self._limit.call("create"))
        if claims is None:  # raised here, because an exception costs the connection
            raise RunIdLockedError
        return claims

    async def claim(self, request: ClaimRequest) -> Claim | Busy | None:
        return await self._write_with_retries(lambda driver: leases.claim(driver, request), self._limit.call("claim"))

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        job = partial(leases.renew, claims=claims, ttl=ttl)
        return await self._with_retries(partial(self._renewer.write, job), self._limit.renewal(ttl))

    async def request_stop(self, run_id: str, reason: str) -> bool:
        job = partial(leases.request_stop, run_id=run_id, reason=reason)
        return await self._write_with_retries(job, self._limit.call("request a stop"))

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        if not changes:
            return []
        skips_locked = bool(self._locked) and any(change.key in self._locked for change in changes)
        job = partial(_commit, changes=changes, skips_locked=skips_locked)
        outcomes = await self._write_with_retries(job, self._limit.call("commit"))
        if skips_locked or CommitOutcome.LOCKED in outcomes:
            self._locked.difference_update(change.key for change in changes)
            self._locked.update(
                change.key for change, outcome in zip(changes, outcomes, strict=True) if outcome is CommitOutcome.LOCKED
            )
        return outcomes

    async def delete(self, run_id: str, *, only_ended: bool) -> bool:
        with self._map_errors:  # without retries, because the answer of a second attempt would be False
            job = partial(_delete, run_id=run_id, only_ended=only_ended)
            deleted = await self._writer.write(job, self._limit.call("delete"))
            return deleted is not None

    async def close(self) -> None:
        with self._map_errors:
            try:
                await self._writer.close()
            finally:
                await self._renewer.close()

    async def _write_with_retries(self, job: Job[Driver, ResultT], call: Call) -> ResultT:
        return await self._with_retries(partial(self._writer.write, job), call)

    async def _with_retries(self, attempt: Callable[[Call], Awaitable[ResultT]], call: Call) -> ResultT:
        try:
            with self._map_errors:
                return await call.retry(attempt, is_transient_on_postgres)
        except StoreError as exc:
            if is_rejected_statement(exc.__cause__):
                await raise_if_upgraded(self.version)
            raise


async def _delete(driver: Driver, run_id: str, *, only_ended: bool) -> object:
    return await driver.fetchval(statements.DELETE, run_id, only_ended)


async def _commit(driver: Driver, changes: Sequence[RunChange], *, skips_locked: bool) -> list[CommitOutcome]:
    """Commit the changes; waits for locked rows only for a short time, and then leaves them out."""
    if skips_locked:
        return await _commit_unlocked(driver, changes)
    text, arguments = _commit_call(changes)
    try:
        records = await driver.fetch(text, *arguments)
    except asyncpg.LockNotAvailableError:
        return await _commit_unlocked(driver, changes)
    keys = {record["id"] for record in records}
    refused = [each for each in changes if each.key not in keys]
    if refused:  # fenced, or committed by an earlier attempt
        ids = zip(*((each.key, each.epoch, each.commit_id) for each in refused), strict=True)
        keys.update(record["id"] for record in await driver.fetch(statements.COMMITTED_EARLIER, *ids))
    return [CommitOutcome.COMMITTED if each.key in keys else CommitOutcome.FENCED for each in changes]


async def _commit_unlocked(driver: Driver, changes: Sequence[RunChange]) -> list[CommitOutcome]:
    """Commit the changes of runs whose rows are not locked."""
    text, arguments = _commit_call(changes, skips_locked=True)
    committed = {record["id"] for record in await driver.fetch(text, *arguments)}
    rest = [each for each in changes if each.key not in committed]
    locked: set[int] = set()
    if rest:
        fences = zip(*((each.key, each.epoch, each.expected_seq) for each in rest), strict=True)
        locked = {record["id"] for record in await driver.fetch(statements.UNCHANGED, *fences)}
        # The order matters: an earlier attempt of a change may be committed between the two queries.
        ids = zip(*((each.key, each.epoch, each.commit_id) for each in rest), strict=True)
        committed |= {record["id"] for record in await driver.fetch(statements.COMMITTED_EARLIER, *ids)}
    return [_outcome(each.key, committed, locked) for each in changes]


def _outcome(key: int, committed: set[int], locked: set[int]) -> CommitOutcome:
    if key in committed:
        return CommitOutcome.COMMITTED
    return CommitOutcome.LOCKED if key in locked else CommitOutcome.FENCED


def _commit_call(changes: Sequence[RunChange], *, skips_locked: bool = False) -> tuple[str, list[object]]:
    """The statement that commits the changes, and its arguments."""
    # Ordered by key, so that concurrent writers lock the rows of runs in the same order.
    ordered = sorted(changes, key=lambda change: change.key)
    rows = [_change_values(change) for change in ordered]
    visits = [
        visit_values(change.key, visit, unchanged_timestamp, bool) for change in ordered for visit in change.visits
    ]
    events = [event_values(change.key, event, unchanged_timestamp) for change in ordered for event in change.events]
    is_single = len(rows) == 1 and len(visits) <= 1 and len(events) <= 1 and not skips_locked
    shape = statements.CommitShape(
        is_single=is_single, has_visits=bool(visits), has_events=bool(events), skips_locked=skips_locked
    )
    text = statements.commit_statement(shape)
    if is_single:
        return text, [value for row in (*rows, *visits, *events) for value in row]
    return text, [array for array in (rows, visits, events) if array]


def _change_values(change: RunChange) -> tuple[object, ...]:
    """Values of the row type `CHANGE`."""
    fence = (change.key, change.epoch, change.expected_seq, change.next_seq)
    commit = (change.commit_id, change.makes_progress)
    end = change.end
    if end is None:
        return (*fence, *commit, change.status.value, change.at, None, None, None, None, None)
    failure = (end.error_step, escaped_text(end.error), end.error_category, escaped_text(end.stop_reason))
    return (*fence, *commit, end.status.value, change.at, end.at, *failure)


async def _version(driver: Driver) -> int:
    if not await driver.fetchval(statements.EXISTS):
        return 0
    return usable_version(dict(await driver.fetchrow(statements.VERSION) or {}))


async def _version_outside_transaction(driver: Driver) -> int:
    """The schema version in one round trip; in a transaction the error of a missing table would abort it."""
    try:
        return usable_version(dict(await driver.fetchrow(statements.VERSION) or {}))
    except asyncpg.UndefinedTableError:
        return 0


async def _upgrade(driver: Driver, dialect: Dialect) -> None:
    # With a stricter isolation level, the snapshot would be older than an upgrade that was committed while this
    # transaction waited for the lock.
    async with driver.transaction(isolation="read_committed"):
        # If several processes start together, the first one upgrades, and the others find the current version.
        await driver.execute(statements.LOCK)
        await driver.execute(statements.STAY_IN_SCHEMA)
        found = await _version(driver)
        if not is_current(found, auto_migrate=True):
            for statement in statements_from(found, dialect):
                await driver.execute(statement)


def _is_usable(driver: Driver) -> bool:
    return not driver.is_closed()


def _abort(driver: Driver) -> None:
    driver.terminate()


async def _accept(driver: Driver, info: object) -> bool:
    return True


def _check_owner(driver: Driver) -> None:
    loop = getattr(driver, "_loop", None)  # asyncpg has no public attribute for it
    if loop is not None and loop is not asyncio.get_running_loop():
        raise foreign_loop()


async def _no_op(driver: Driver) -> None:
    return None
