"""The run store for SQL databases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self

import anyio.to_thread
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import encode
from spine_async._model.due import (
    Backlog,
    Delivery,
    DueRequest,
    DueRun,
    DueRuns,
    NewMessage,
    Notice,
    OpenWait,
    RunState,
    Sweep,
)
from spine_async._model.durability import Durability
from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.naming import is_path
from spine_async._model.queue import Queue
from spine_async._model.run_change import Release, RunChange
from spine_async._model.run_claim import Busy, Claim, NoRoom, Renewal
from spine_async._model.run_filter import RunFilter
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async._model.status import RunStatus
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_record import ItemState
from spine_async._model.visit_row import EventRow, PastPage, VisitRow
from spine_async.errors import CorruptRecordError
from spine_async.ports import CommitOutcome, DeleteIf, Listener, StepTransaction
from spine_async.storage.sql.database import LazyDatabase
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.time_limit import DEFAULT_SECONDS
from spine_async.storage.sql.event_pages import read_event_page
from spine_async.storage.sql.schema import queries, run_queries
from spine_async.storage.sql.schema.overview_rows import read_backlog, read_item_states, read_open_waits
from spine_async.storage.sql.schema.rows import Row, read_event, read_past_visit, read_run, read_visit
from spine_async.storage.sql.schema.run_queries import BoundQuery
from spine_async.storage.sql.visit_pages import read_visits

_log = logging.getLogger("spine_async")

_MISSING_ID = ""  # no run has this id


class SqlRunStore:
    """Stores runs in SQLite (through aiosqlite) or PostgreSQL (through asyncpg).

    The database is opened by `open` or by the first other call. One connection stays checked out for writing until
    `close`. After `close`, or in another event loop, the next call opens the database again.

    Args:
        database: An engine, or the URL of the database. The store adds no hooks and no lasting settings to a given
            engine, and disposes of it only if `owns_engine` is set.
        auto_migrate: Whether the first use creates a missing schema and migrates an older one.
        owns_engine: Whether `close` disposes of the engine.
        durability: The failures that a commit survives on SQLite. With `full` (`synchronous=FULL`) it survives a power
            failure. With `process` (`synchronous=NORMAL`) it survives the end of the process, but a power failure or a
            kernel crash may lose the last commits. The database stays consistent in both cases. On PostgreSQL the
            server's `synchronous_commit` applies instead.
        timeout: Seconds that one call may take, retries included. A connection that does not answer for half of that
            time is replaced. When the time is over, the call raises `StoreUnavailableError`. On SQLite the timeout
            limits the wait for the locks of other processes. It does not apply to migrations.

    Raises:
        StoreError: The database of the URL is not supported.
        DefinitionError: The engine is not an `AsyncEngine` of a supported driver, or the durability is invalid.
    """

    def __init__(
        self,
        database: AsyncEngine | URL | str,
        *,
        auto_migrate: bool = True,
        owns_engine: bool = False,
        durability: Durability = "full",
        timeout: float = DEFAULT_SECONDS,
    ) -> None:
        self._database = LazyDatabase(
            database, auto_migrate=auto_migrate, owns_engine=owns_engine, durability=durability, timeout=timeout
        )
        self._reported: set[str] = set()  # errors of runs that cannot be read

    @classmethod
    def from_url(
        cls,
        url: URL | str,
        *,
        auto_migrate: bool = True,
        durability: Durability = "full",
        timeout: float = DEFAULT_SECONDS,
    ) -> Self:
        """A store for a URL such as `sqlite:///path/to/file.db` or `postgresql://user@host/database`.

        The first use creates the engine, and `close` disposes of it. A relative path is resolved against the working
        directory at the first use. The first write creates the folder.
        """
        return cls(url, auto_migrate=auto_migrate, durability=durability, timeout=timeout)

    @property
    def location(self) -> str:
        """The database's kind and location without credentials, for logs. Reads the working directory."""
        return self._database.location

    @property
    def commits_out_of_process(self) -> bool:
        return self._database.commits_out_of_process

    async def open(self) -> None:
        if self._database.is_ready:
            return
        # Queries for a run that does not exist: they compile, prepare and plan the statements that a resume needs.
        await self.load(_MISSING_ID)
        await self.past_visits(_MISSING_ID, 0, 1)

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        database = await self._database.for_writing()
        return await database.create(runs)

    async def claim(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | None:
        answer = await self._claim(
            ClaimRequest(
                run_id=run_id, owner=owner, event=event, ttl=ttl, over_epoch=over_epoch, unless_ended=unless_ended
            )
        )
        assert not isinstance(answer, NoRoom)  # noqa: S101 - the request has no limits
        return answer

    async def claim_queued(
        self,
        run_id: str,
        owner: str,
        event: EventRow | None,
        *,
        limits: Queue,
        ttl: float,
        over_epoch: int | None = None,
        unless_ended: bool = False,
    ) -> Claim | Busy | NoRoom | None:
        return await self._claim(
            ClaimRequest(
                run_id=run_id,
                owner=owner,
                event=event,
                ttl=ttl,
                over_epoch=over_epoch,
                unless_ended=unless_ended,
                limits=limits,
            )
        )

    async def _claim(self, request: ClaimRequest) -> Claim | Busy | NoRoom | None:
        if await self._database.for_reading() is None:
            return None
        database = await self._database.for_writing()
        with CorruptionGuard(request.run_id):
            return await database.claim(request)

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        database = await self._database.for_writing()
        return await database.renew(claims, ttl) if claims else []

    async def request_stop(self, run_id: str, reason: str) -> bool:
        if await self._database.for_reading() is None:
            return False
        database = await self._database.for_writing()
        return await database.request_stop(run_id, reason)

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        database = self._database.ready or await self._database.for_writing()
        return await database.commit(changes)

    async def load(self, run_id: str) -> StoredRun | None:
        database = await self._database.for_reading()
        if database is None:
            return None
        with CorruptionGuard(run_id):  # asyncpg decodes timestamps, and fails for those that Python cannot represent
            rows = await database.read(queries.LOAD_RUN[database.dialect], {"run_id": run_id})
        return read_run(rows[0]) if rows else None

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        database = await self._database.for_reading()
        with CorruptionGuard(run_id):
            return await read_visits(database, run_id, chosen) if database is not None else []

    async def past_visits(self, run_id: str, after: int, limit: int) -> PastPage:
        rows = await self._read_of(run_id, queries.PAST_VISITS, {"after": after, "most": limit})
        visits = [read_past_visit(run_id, row[:-1]) for row in rows]
        with CorruptionGuard(run_id):
            return PastPage(visits, int(str(rows[-1][-1])) if rows else 0)

    async def visit_outlines(self, run_id: str, after: int, limit: int) -> list[VisitRow]:
        rows = await self._read_of(run_id, queries.VISIT_OUTLINES, {"after": after, "most": limit})
        return [read_visit(run_id, row) for row in rows]

    async def item_states(self, run_id: str, path: str) -> list[ItemState]:
        values = {"path": path, "from_path": f"{path}[", "to_path": f"{path}\\"}
        rows = await self._read_of(run_id, queries.ITEM_STATES, values)
        with CorruptionGuard(run_id):  # on a thread, because there may be a million rows
            return await anyio.to_thread.run_sync(read_item_states, rows, path)

    async def last_visit(self, run_id: str, step: str) -> VisitRow | None:
        if is_path(step):
            rows = await self._read_of(run_id, queries.FINISHED_VISIT, {"path": step})
        else:
            # `$` is the next character after `#`, so the range contains `step` and all `step#2`.
            names = {"step_name": step, "from_path": step, "to_path": f"{step}$"}
            rows = await self._read_of(run_id, queries.LAST_VISIT, names)
        return read_visit(run_id, rows[0]) if rows else None

    async def last_event(self, run_id: str, event_type: str, path: str) -> EventRow | None:
        rows = await self._read_of(run_id, queries.LAST_EVENT, {"event_type": event_type, "path": path})
        return read_event(run_id, rows[0]) if rows else None

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        rows = await self._select(chosen, run_queries.list_runs)
        if not chosen.skips_unreadable:
            return [read_run(row) for row in rows]
        return [run for row in rows if (run := self._readable(row)) is not None]

    async def count_runs(self, chosen: RunFilter) -> dict[RunStatus, int]:
        rows = await self._select(chosen, run_queries.count_runs)
        counts = {RunStatus(str(status)): min(int(str(count)), chosen.limit) for status, count in rows}
        return {status: count for status, count in counts.items() if count}

    async def _select(self, chosen: RunFilter, query: Callable[[RunFilter, str], BoundQuery]) -> Sequence[Row]:
        database = await self._database.for_reading()
        if database is None:
            return []
        bound = query(chosen, database.dialect)
        return await database.read(bound.text, bound.values)

    def _readable(self, row: Row) -> StoredRun | None:
        """The run in a row; None if it cannot be read, which is logged once."""
        try:
            return read_run(row)
        except CorruptRecordError as exc:
            if str(exc) not in self._reported:
                self._reported.add(str(exc))
                _log.error("%s", exc)
            return None

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        database = await self._database.for_reading()
        with CorruptionGuard(run_id):
            return await read_event_page(database, run_id, after, limit) if database is not None else []

    async def delete(self, run_ids: Sequence[str], condition: DeleteIf = DeleteIf.STORED) -> list[str]:
        if not run_ids or await self._database.for_reading() is None:
            return []
        database = await self._database.for_writing()
        if condition is DeleteIf.UNUSED:
            return await database.delete_unused(run_ids)
        only_ended = condition is DeleteIf.ENDED
        return [each for each in run_ids if await database.delete(each, only_ended=only_ended)]

    async def workflow_names(self) -> list[str]:
        return [str(name) for (name,) in await self._read(queries.WORKFLOW_NAMES, {})]

    async def claim_due(self, request: DueRequest) -> list[DueRun]:
        database = await self._database.for_reading()
        return await database.claim_due(request) if database is not None else DueRuns()

    async def sweep(
        self, gone: Collection[str] = (), lapsed: Collection[str] = (), spared: Collection[str] = ()
    ) -> Sweep:
        database = await self._database.for_reading()
        return await database.sweep(gone, lapsed, spared) if database is not None else Sweep({}, None)

    async def unlisted_queues(self, listed: Collection[str]) -> list[str]:
        database = await self._database.for_reading()
        return await database.unlisted_queues(listed) if database is not None else []

    async def release_run(self, claim: Claim, release: Release) -> bool:
        database = await self._database.for_writing()
        return await database.release_run(claim, release)

    async def send(self, message: NewMessage) -> Delivery:
        database = await self._database.for_reading()
        return await database.send(message) if database is not None else Delivery.NOT_FOUND

    async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
        database = await self._database.for_reading() if claims else None
        return await database.notices(claims) if database is not None else []

    async def states(self, run_ids: Sequence[str]) -> list[RunState]:
        database = await self._database.for_reading() if run_ids else None
        return await database.states(run_ids) if database is not None else []

    async def backlog(self, limit: int) -> Backlog:
        database = await self._database.for_reading()
        rows = await database.read(queries.BACKLOG[database.dialect], {"most": limit}) if database is not None else ()
        return read_backlog(rows, limit)

    async def open_waits(self, run_ids: Sequence[str]) -> list[OpenWait]:
        database = await self._database.for_reading() if run_ids else None
        if database is None:
            return []
        ids = encode(list(run_ids)).text
        return read_open_waits(await database.read(queries.OPEN_WAITS[database.dialect], {"ids": ids}))

    async def listen(self, on_change: Callable[[], None]) -> Listener:
        database = await self._database.for_listening()
        return await database.listen(on_change)

    async def create_within(self, connection: object, runs: Sequence[NewRun]) -> list[Claim | None]:
        database = await self._database.for_caller()
        return await database.create_within(connection, runs)

    async def load_within(self, connection: object, run_id: str) -> StoredRun | None:
        database = await self._database.for_caller()
        with CorruptionGuard(run_id):
            rows = await database.read_within(connection, queries.LOAD_RUN[database.dialect], {"run_id": run_id})
        return read_run(rows[0]) if rows else None

    async def send_within(self, connection: object, message: NewMessage) -> Delivery:
        database = await self._database.for_caller()
        return await database.send_within(connection, message)

    async def fork(self, new: NewFork) -> ForkOutcome:
        if await self._database.for_reading() is None:
            return ForkOutcome.NOT_FOUND
        database = await self._database.for_writing()
        return await database.fork(new)

    @property
    def blocks_commits(self) -> bool:
        return not self._database.commits_out_of_process

    async def transact(self, transaction: StepTransaction, seconds: float) -> CommitOutcome | None:
        database = await self._database.for_writing()
        return await database.transact(transaction, seconds)

    async def register_schedules(self, schedules: Sequence[NewSchedule]) -> None:
        database = await self._database.for_writing()
        await database.register_schedules(schedules)

    async def schedules(self, names: Collection[str] | None = None) -> list[StoredSchedule]:
        database = await self._database.for_reading()
        return await database.schedules(names) if database is not None else []

    async def change_schedule(self, change: ScheduleChange) -> bool:
        database = await self._database.for_writing()
        return await database.change_schedule(change)

    async def check_caller(self) -> None:
        """Refuse a call that would wait for a transaction of its own task."""
        await self._database.check_caller()

    async def close(self) -> None:
        await self._database.close()

    async def _read_of(self, run_id: str, query: queries.Query, values: Mapping[str, object]) -> Sequence[Row]:
        with CorruptionGuard(run_id):
            return await self._read(query, {"run_id": run_id, **values})

    async def _read(self, query: queries.Query, values: Mapping[str, object]) -> Sequence[Row]:
        database = await self._database.for_reading()
        return await database.read(query, values) if database is not None else []
