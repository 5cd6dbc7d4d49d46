"""A SQLite database through aiosqlite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import Any, TypeVar

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async._model.due import Delivery, DueRequest, DueRuns, NewMessage, Notice, RunState, Sweep
from spine_async._model.durability import Durability
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_row import TOKEN_BYTES, NewRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async.errors import DefinitionError, StoreError
from spine_async.ports import CommitOutcome, Listener, NoListener, StepTransaction
from spine_async.storage.boot_clock import boot_time
from spine_async.storage.sql.driver.caller_connection import caller_connection
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.compiled import CompiledQueries
from spine_async.storage.sql.driver.shielded import run_to_completion
from spine_async.storage.sql.driver.time_limit import DEFAULT_SECONDS, Call
from spine_async.storage.sql.schema.migrations import is_current, statements_from
from spine_async.storage.sql.schema.queries import Query
from spine_async.storage.sql.schema.rows import Row
from spine_async.storage.sql.sqlite import changes, due_runs, forks, inbox, jobs, leases, queues, sweep, transactions
from spine_async.storage.sql.sqlite import schedules as schedule_jobs
from spine_async.storage.sql.sqlite.caller import within_caller
from spine_async.storage.sql.sqlite.changes import commit
from spine_async.storage.sql.sqlite.connections import SqliteConnections, SqliteJob, run_on_thread
from spine_async.storage.sql.sqlite.step_transactions import InnerEngine, SqliteStepTransaction
from spine_async.storage.sql.sqlite.watch import FileWatch

ResultT = TypeVar("ResultT")


class SqliteDatabase(SqliteConnections):
    """Runs each operation as one job on the connection's own thread."""

    dialect = "sqlite"
    is_bound_to_loop = False
    commits_out_of_process = False

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        makes_folder: bool,
        auto_migrate: bool,
        durability: Durability,
        timeout: float = DEFAULT_SECONDS,
    ) -> None:
        super().__init__(engine, makes_folder=makes_folder, durability=durability, timeout=timeout)
        self._auto_migrate = auto_migrate
        self._compiled = CompiledQueries(engine.dialect)
        self._watch: FileWatch | None = None
        self._inner_engine = InnerEngine()

    async def upgrade(self) -> None:
        await self._write(partial(_upgrade, engine=self._engine), self._limit.call("upgrade"))

    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]:
        return await self._read_with_retries(self._reading(query, values), "read")

    def _reading(self, query: Query, values: Mapping[str, object]) -> SqliteJob[list[Row]]:
        def job(connection: sqlite3.Connection) -> list[Row]:
            now = boot_time()
            text, bound = self._compiled.bind(query, {**values, "boot": now.boot, "seconds": now.seconds})
            return jobs.fetch(connection, text, bound)

        return job

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        return await self._write_with_retries(partial(leases.create, runs=runs), "create")

    async def claim(self, request: ClaimRequest) -> Claim | Busy | NoRoom | None:
        return await self._write_with_retries(partial(leases.claim, request=request), "claim")

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        job = partial(leases.renew, claims=claims, ttl=ttl)
        if self._renewer is self._writer:
            return await self._write_with_retries(job, "renew")
        return await self._with_retries(partial(self._renew, job), self._limit.renewal(ttl))

    async def request_stop(self, run_id: str, reason: str) -> bool:
        job = partial(leases.request_stop, run_id=run_id, reason=reason)
        return await self._write_with_retries(job, "request a stop")

    def commit(self, changes: Sequence[RunChange]) -> Coroutine[Any, Any, list[CommitOutcome]]:
        return self._write_with_retries(partial(commit, changes=changes), "commit")

    async def delete(self, run_id: str, *, only_ended: bool) -> bool:
        job = partial(jobs.delete, run_id=run_id, only_ended=only_ended)
        return await self._write(job, self._limit.call("delete"))

    async def delete_unused(self, run_ids: Sequence[str]) -> list[str]:
        # A power failure that undoes the deletion harms nobody: the next pass repeats it.
        return await self._write_unsynced(partial(jobs.delete_unused, run_ids=run_ids), "delete")

    async def claim_due(self, request: DueRequest) -> DueRuns:
        # First without the write lock, so that an idle worker delays nobody.
        empty = await self._look_with_retries(partial(due_runs.look, request=request), "look for due runs")
        if empty is not None:
            return empty
        job = partial(due_runs.claim_due, request=request)
        # A power failure that undoes the claim has ended its owner too, and each step that was committed after it is
        # synced together with it.
        return await self._write_unsynced(job, "claim due runs")

    async def sweep(self, gone: Collection[str], lapsed: Collection[str], spared: Collection[str]) -> Sweep:
        found = await self._look_with_retries(sweep.look, "sweep")
        if not found.needs_write(gone, lapsed):
            return found.sweep
        job = partial(sweep.sweep, gone=gone, lapsed=lapsed, spared=spared)
        return await self._write_unsynced(job, "sweep")

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        await self._write_with_retries(partial(queues.list_queues, queues=listed), "list queues")
        return await self._read_with_retries(partial(queues.unlisted_queues, listed=listed), "look for queues")

    async def release_run(self, claim: Claim, release: Release) -> bool:
        token = token_hex(TOKEN_BYTES)
        job = partial(changes.release, key=claim.key, epoch=claim.epoch, token=token, given=release)
        return await self._write_with_retries(job, "release")

    async def send(self, message: NewMessage) -> Delivery:
        return await self._write_with_retries(partial(inbox.send, message=message), "send")

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        return await self._look_with_retries(partial(inbox.notices, claims=claims), "read notices")

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        return await self._look_with_retries(partial(due_runs.states, run_ids=run_ids), "read states")

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        if self._file is None:
            return NoListener()
        if self._watch is None:
            self._watch = FileWatch(self._file, self._own_commits)
        return self._watch.listen(on_change)

    async def create_within(self, connection: object, runs: Sequence[NewRun]) -> list[Claim | None]:
        return await self._within(connection, partial(leases.create, runs=runs))

    async def read_within(self, connection: object, query: Query, values: Mapping[str, object]) -> list[Row]:
        return await self._within(connection, self._reading(query, values))

    async def send_within(self, connection: object, message: NewMessage) -> Delivery:
        return await self._within(connection, partial(inbox.send, message=message))

    async def fork(self, new: NewFork) -> ForkOutcome:
        return await self._write_with_retries(partial(forks.fork, new=new), "fork")

    async def transact(self, transaction: StepTransaction, seconds: float) -> CommitOutcome | None:
        step = SqliteStepTransaction(transaction, self._inner_engine, seconds)
        work = self._write(step.run, Call("transaction", self._limit, seconds + self._limit.seconds, 1))
        try:
            return await run_to_completion(work)
        except StoreError as exc:
            cause = exc.__cause__ or exc
            if step.change is None:
                if isinstance(cause, TimeoutError):
                    raise cause from None
                raise
            outcome = await self._read_with_retries(step.found_outcome, "look for a commit")
            if outcome is None:
                transaction.reject(cause, is_transient=not isinstance(cause, sqlite3.IntegrityError))
            return outcome

    async def register_schedules(self, schedules: Sequence[NewSchedule]) -> None:
        job = partial(schedule_jobs.register, schedules=schedules)
        await self._write_with_retries(job, "register schedules")

    async def schedules(self, names: Collection[str] | None) -> list[StoredSchedule]:
        return await self._read_with_retries(partial(schedule_jobs.read, names=names), "read schedules")

    async def change_schedule(self, change: ScheduleChange) -> bool:
        return await self._write_with_retries(partial(schedule_jobs.change, given=change), "change a schedule")

    async def close(self) -> None:
        if self._watch is not None:
            await self._watch.close()
        await super().close()

    async def _within(self, given: object, job: SqliteJob[ResultT]) -> ResultT:
        """Run the job in the transaction of the caller."""
        if self._file is None:
            raise DefinitionError("the runs are stored in memory, where a caller has no transaction of its own")
        connection = await caller_connection(given, self._engine.dialect.driver)
        with self._map_errors:
            driver = await self._driver_of(connection)
            creation = statements_from(0, self._engine.dialect) if self._auto_migrate else None
            work = partial(within_caller, file=self._file, work=job, creation=creation)
            result = await run_on_thread(driver, work)
        if connection.sync_connection is not None:
            transactions.note(connection.sync_connection)  # another task may have begun the transaction
        return result

    @staticmethod
    async def check_caller(url: URL) -> None:
        """Refuse a call that would wait for a transaction of its own task.

        Raises:
            DefinitionError: A transaction of the task holds the write lock of the file.
        """
        await transactions.refuse_inside(url)


def _upgrade(connection: sqlite3.Connection, engine: AsyncEngine) -> None:
    found = jobs.version(connection)
    if not is_current(found, auto_migrate=True):
        for statement in statements_from(found, engine.dialect):
            connection.execute(statement)
