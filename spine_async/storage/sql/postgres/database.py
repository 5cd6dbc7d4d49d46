"""A PostgreSQL database through asyncpg."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, TypeAlias, cast

from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async._model.due import Delivery, DueRequest, DueRuns, NewMessage, Notice, RunState, Sweep
from spine_async._model.durability import Durability
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_row import TOKEN_BYTES, NewRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async.errors import StoreError
from spine_async.ports import CommitOutcome, Listener, RunIdLockedError, StepTransaction
from spine_async.storage.sql.driver.caller_connection import caller_connection
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.compiled import CompiledQueries
from spine_async.storage.sql.driver.connection import ResultT
from spine_async.storage.sql.driver.handler_connection import MisusedConnectionError
from spine_async.storage.sql.driver.time_limit import DEFAULT_SECONDS, Call
from spine_async.storage.sql.postgres import changes as change_jobs
from spine_async.storage.sql.postgres import due_runs, forks, inbox, leases, limited_claims, queues, statements
from spine_async.storage.sql.postgres import schedules as schedule_jobs
from spine_async.storage.sql.postgres.announcements import Announcer, notify
from spine_async.storage.sql.postgres.caller import IDENTITY, CommitWatch, driver_in_transaction, in_savepoint
from spine_async.storage.sql.postgres.connections import PostgresConnections
from spine_async.storage.sql.postgres.listener import ChangeListener
from spine_async.storage.sql.postgres.step_transactions import PostgresStepTransaction, is_transient
from spine_async.storage.sql.postgres.sweep import sweep
from spine_async.storage.sql.schema.queries import Query
from spine_async.storage.sql.schema.rows import Row

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]


_NOTIFY_SECONDS = 3.0
"""Time limit of a notification, which nobody repeats."""

_ENDS_LATER = 1.0
"""Seconds after which the connection of a transaction is closed that the server should have ended."""


class PostgresDatabase(PostgresConnections):
    """Calls asyncpg directly: one round trip per operation, without SQLAlchemy's transaction around it."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        makes_folder: bool = False,
        auto_migrate: bool = True,
        durability: Durability = "full",
        timeout: float = DEFAULT_SECONDS,
    ) -> None:
        super().__init__(engine, timeout)
        self._locked: set[int] = set()  # keys of runs whose rows were locked at their last commit
        self._compiled = CompiledQueries(engine.dialect)
        self._identity: tuple[object, ...] | None = None
        token = token_hex(TOKEN_BYTES)
        self._announcer = Announcer(partial(self._notify, token))
        self._listener = ChangeListener(self._pool, self._hooks, self._limit, self._map_errors, token)
        self._callers = CommitWatch(self._after_commit_of_caller)

    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]:
        return await self._read_with_retries(self._reading(query, values), "read")

    def _reading(self, query: Query, values: Mapping[str, object]) -> Callable[[Driver], Awaitable[list[Row]]]:
        text, bound = self._compiled.bind(query, values)

        async def job(driver: Driver) -> list[Row]:
            return cast("list[Row]", await driver.fetch(text, *bound))  # a Record behaves as a sequence

        return job

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        if not runs:
            return []
        claims = await self._write_with_retries(partial(leases.create, runs=runs), self._limit.call("create"))
        if claims is None:  # raised here, because an exception costs the connection
            raise RunIdLockedError
        if any(not run.is_held for run in runs):
            self._announcer.announce(at_once=True)
        return claims

    async def claim(self, request: ClaimRequest) -> Claim | Busy | NoRoom | None:
        if request.limits is not None:  # not on the writer: the claim may wait for others
            job = partial(limited_claims.claim, request=request, queue=request.limits)
            return await self._read_with_retries(job, "claim")
        return await self._write_with_retries(lambda driver: leases.claim(driver, request), self._limit.call("claim"))

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        job = partial(leases.renew, claims=claims, ttl=ttl)
        renewals = await self._with_retries(partial(self._renewer.write, job), self._limit.renewal(ttl))
        if ttl == 0:
            self._announcer.announce(at_once=True)
        return renewals

    async def request_stop(self, run_id: str, reason: str) -> bool:
        job = partial(leases.request_stop, run_id=run_id, reason=reason)
        is_stored = await self._write_with_retries(job, self._limit.call("request a stop"))
        if is_stored:
            self._announcer.announce(at_once=True)
        return is_stored

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        if not changes:
            return []
        skips_locked = bool(self._locked) and any(change.key in self._locked for change in changes)
        job = partial(change_jobs.commit, changes=changes, skips_locked=skips_locked)
        outcomes = await self._write_with_retries(job, self._limit.call("commit"))
        if skips_locked or CommitOutcome.LOCKED in outcomes:
            self._locked.difference_update(change.key for change in changes)
            self._locked.update(
                change.key for change, outcome in zip(changes, outcomes, strict=True) if outcome is CommitOutcome.LOCKED
            )
        if any(change.end is not None or change.release is not None for change in changes):
            self._announcer.announce(at_once=False)
        return outcomes

    async def delete(self, run_id: str, *, only_ended: bool) -> bool:
        with self._map_errors:  # without retries, because the answer of a second attempt would be False
            job = partial(_delete, run_id=run_id, only_ended=only_ended)
            deleted = await self._writer.write(job, self._limit.call("delete"))
            return deleted is not None

    async def delete_unused(self, run_ids: Sequence[str]) -> list[str]:
        async def job(driver: Driver) -> list[str]:
            return [str(run_id) for (run_id,) in await driver.fetch(statements.DELETE_UNUSED, list(run_ids))]

        return await self._read_with_retries(job, "delete")  # not on the writer: commits need not wait for it

    async def claim_due(self, request: DueRequest) -> DueRuns:
        if request.limits:  # not on the writer: the claim may wait for others
            return await self._read_with_retries(partial(limited_claims.claim_due, request=request), "claim due runs")
        job = partial(due_runs.claim_due, request=request)
        return DueRuns(await self._write_with_retries(job, self._limit.call("claim due runs")))

    async def sweep(self, gone: Collection[str], lapsed: Collection[str], spared: Collection[str]) -> Sweep:
        return await self._read_with_retries(partial(sweep, gone=gone, lapsed=lapsed, spared=spared), "sweep")

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        return await self._read_with_retries(partial(queues.unlisted_queues, listed=listed), "look for queues")

    async def release_run(self, claim: Claim, release: Release) -> bool:
        job = partial(change_jobs.release, claim=claim, token=token_hex(TOKEN_BYTES), given=release)
        is_released = await self._write_with_retries(job, self._limit.call("release"))
        if is_released:
            self._announcer.announce(at_once=True)
        return is_released

    async def send(self, message: NewMessage) -> Delivery:
        # Not on the writer: the insertion may wait for the transaction of somebody who sends the same key.
        delivery = await self._read_with_retries(partial(inbox.send, message=message), "send")
        if delivery is Delivery.STORED:
            self._announcer.announce(at_once=True)
        return delivery

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        return await self._read_with_retries(partial(inbox.notices, claims=claims), "read notices")

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        return await self._read_with_retries(partial(due_runs.states, run_ids=run_ids), "read states")

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        return await self._listener.listen(on_change)

    async def create_within(self, connection: object, runs: Sequence[NewRun]) -> list[Claim | None]:
        if not runs:
            return []
        claims = await self._within(connection, partial(leases.create, runs=runs, is_within=True), "create")
        if claims is None:
            raise RunIdLockedError
        return claims

    async def read_within(self, connection: object, query: Query, values: Mapping[str, object]) -> list[Row]:
        return await self._within(connection, self._reading(query, values), "read")

    async def send_within(self, connection: object, message: NewMessage) -> Delivery:
        return await self._within(connection, partial(inbox.send, message=message, is_within=True), "send")

    async def fork(self, new: NewFork) -> ForkOutcome:
        # Not on the writer: copying many rows takes long.
        outcome = await self._read_with_retries(partial(forks.fork, new=new), "fork")
        if outcome is None:
            raise RunIdLockedError
        return outcome

    async def transact(self, transaction: StepTransaction, seconds: float) -> CommitOutcome | None:
        step = PostgresStepTransaction(transaction, seconds)
        call = Call("transaction", self._limit, seconds + _ENDS_LATER, 1)
        try:
            with self._map_errors:
                outcome = await self._pool.read_with_connection(step.run, call)
        except MisusedConnectionError:
            return None
        except StoreError as exc:
            if step.change is None:
                if isinstance(exc.__cause__, TimeoutError):
                    raise exc.__cause__ from None
                raise
            outcome = await self._read_with_retries(step.found_outcome, "look for a commit")
            if outcome is None:
                cause = exc.__cause__ or exc
                transaction.reject(cause, is_transient=is_transient(cause))
        return outcome

    async def register_schedules(self, schedules: Sequence[NewSchedule]) -> None:
        job = partial(schedule_jobs.register, schedules=schedules)
        await self._write_with_retries(job, self._limit.call("register schedules"))

    async def schedules(self, names: Collection[str] | None) -> list[StoredSchedule]:
        return await self._read_with_retries(partial(schedule_jobs.read, names=names), "read schedules")

    async def change_schedule(self, change: ScheduleChange) -> bool:
        # Not on the writer: it may wait for another process that changes the same schedule.
        is_changed = await self._read_with_retries(partial(schedule_jobs.change, given=change), "change a schedule")
        if is_changed is None:
            raise RunIdLockedError
        if change.run is not None and is_changed:
            self._announcer.announce(at_once=True)
        return is_changed

    async def close(self) -> None:
        await self._callers.close()
        await self._listener.close()
        await self._announcer.close()
        await super().close()

    async def _within(self, given: object, job: Callable[[Driver], Awaitable[ResultT]], name: str) -> ResultT:
        """Run the job in the transaction of the caller, and announce it after the commit."""
        connection = await caller_connection(given, self._engine.dialect.driver)
        with self._map_errors:
            async with self._limit.call(name).within():
                driver = await driver_in_transaction(connection, self._is_own)
                result = await in_savepoint(driver, job)
        self._callers.watch(connection)
        return result

    async def _is_own(self, identity: object) -> bool:
        if identity != self._identity:  # the server may have been restarted since
            self._identity = await self._read_with_retries(_read_identity, "read")
        return identity == self._identity

    def _after_commit_of_caller(self) -> None:
        self._listener.report()  # this process does not learn of the commit in another way
        self._announcer.announce(at_once=True)

    async def _notify(self, token: str) -> None:
        with self._map_errors:
            await self._renewer.write(partial(notify, payload=token), Call("notify", self._limit, _NOTIFY_SECONDS, 1))


async def _delete(driver: Driver, run_id: str, *, only_ended: bool) -> object:
    return await driver.fetchval(statements.DELETE, run_id, only_ended)


async def _read_identity(driver: Driver) -> tuple[object, ...]:
    return tuple(await driver.fetchrow(IDENTITY) or ())
