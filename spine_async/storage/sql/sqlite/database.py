"""A SQLite database through aiosqlite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import aiosqlite
import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import StaticPool

from spine_async._model.durability import Durability
from spine_async._model.record import Busy, Claim, NewRun, Renewal, RunChange
from spine_async.errors import StoreError
from spine_async.ports import CommitOutcome
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.driver.compiled import CompiledQueries
from spine_async.storage.sql.driver.connection import DriverHabits, Lender
from spine_async.storage.sql.driver.retry import insist
from spine_async.storage.sql.driver.url import sqlite_file
from spine_async.storage.sql.schema.migrations import is_current, statements_from
from spine_async.storage.sql.schema.queries import Query
from spine_async.storage.sql.schema.rows import Row
from spine_async.storage.sql.sqlite import jobs, leases
from spine_async.storage.sql.sqlite.boot_clock import boot_time
from spine_async.storage.sql.sqlite.errors import is_passing_on_sqlite, sqlite_faults

ResultT = TypeVar("ResultT")

_LEAST_LIBRARY = (3, 38)  # the view of checkpoints takes the exact text of a JSON value with `->`


class SqliteDatabase:
    """Does everything in single jobs on a connection's own thread."""

    dialect = "sqlite"
    is_bound_to_loop = False
    commits_out_of_process = False

    def __init__(self, engine: AsyncEngine, *, makes_folder: bool, durability: Durability) -> None:
        self._engine = engine
        self._makes_folder = makes_folder
        self._durability = durability
        self._file = sqlite_file(engine.url)
        self._compiled = CompiledQueries(engine.dialect)
        self._faults = sqlite_faults(engine.url)
        self._before: jobs.Pragmas = {}
        self._lender = Lender(engine, DriverHabits(_is_usable, self._prepare, self._restore, opens_at_once=True))

    async def exists(self) -> bool:
        """Whether there is a file to read; looking must not make one."""
        with self._faults:
            return self._file is None or await anyio.to_thread.run_sync(_is_there, self._file)

    async def make_place(self) -> None:
        """Make the folder that the file lies in, where the URL is ours, and the file."""
        _check_library(sqlite3.sqlite_version_info)
        if self._file is not None:
            with self._faults:
                await anyio.to_thread.run_sync(_make_file, self._file, self._makes_folder)

    async def version(self) -> int:
        with self._faults:
            return await self._lender.read(lambda driver: _hop(driver, jobs.version))

    async def upgrade(self) -> None:
        await self._write(partial(_upgrade, engine=self._engine))

    async def read(self, query: Query, values: Mapping[str, object]) -> list[Row]:
        def job(connection: sqlite3.Connection) -> list[Row]:
            now = boot_time()
            text, bound = self._compiled.bind(query, {**values, "boot": now.boot, "seconds": now.seconds})
            return jobs.fetch(connection, text, bound)

        with self._faults:
            return await insist(lambda: self._lender.read(lambda driver: _hop(driver, job)), is_passing_on_sqlite)

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        job = partial(leases.create, runs=runs)
        return await self._insist(job)

    async def claim(self, asked: ClaimRequest) -> Claim | Busy | None:
        job = partial(leases.claim, asked=asked)
        return await self._insist(job)

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        job = partial(leases.renew, claims=claims, ttl=ttl)
        return await self._insist(job)

    async def request_stop(self, run_id: str, reason: str) -> bool:
        job = partial(leases.request_stop, run_id=run_id, reason=reason)
        return await self._insist(job)

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        return await self._insist(partial(jobs.commit, changes=changes))

    async def delete(self, run_id: str) -> bool:
        return await self._write(partial(jobs.delete, run_id=run_id))

    async def close(self) -> None:
        with self._faults:
            await self._lender.close()

    async def _insist(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Write, and once more while what goes wrong passes."""
        with self._faults:
            return await insist(lambda: self._written(work), is_passing_on_sqlite)

    async def _write(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        with self._faults:
            return await self._written(work)

    async def _written(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        return await self._lender.write(lambda driver: _hop(driver, partial(jobs.in_transaction, work=work)))

    async def _prepare(self, driver: aiosqlite.Connection) -> None:
        # A database in memory has no file to be careful with, and its one connection may be somebody else's too.
        if not isinstance(self._engine.pool, StaticPool):
            self._before = await _hop(driver, partial(jobs.prepare, durability=self._durability))

    async def _restore(self, driver: aiosqlite.Connection) -> None:
        before, self._before = self._before, {}
        await _hop(driver, partial(jobs.restore, before=before))


def _check_library(found: tuple[int, ...]) -> None:
    if found < _LEAST_LIBRARY:
        least, has = (".".join(str(part) for part in version) for version in (_LEAST_LIBRARY, found))
        raise StoreError(f"SQLite {least} or later is needed, this Python has {has}; use a newer Python, or PostgreSQL")


async def _hop(driver: aiosqlite.Connection, job: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
    """Run the job on the connection's thread.

    aiosqlite has public calls for single statements only. A transaction of several of them can be cut in two by a
    cancellation and then stays open; one function on the thread cannot.
    """
    return cast("ResultT", await driver._execute(job, driver._conn))  # type: ignore[no-untyped-call]  # noqa: SLF001


def _is_there(file: Path) -> bool:
    if not file.exists():
        return False
    _probe(file)
    return True


def _make_file(file: Path, makes_folder: bool) -> None:  # noqa: FBT001 (a thread is given positions only)
    if makes_folder:
        file.parent.mkdir(parents=True, exist_ok=True)
    _probe(file)


def _probe(file: Path) -> None:
    """Raise what opening the file raises.

    aiosqlite does not wait for the thread of a connection that could not be opened, which may then find the loop closed
    and print a traceback of its own; so such a file does not get that far.
    """
    sqlite3.connect(file).close()


def _is_usable(driver: aiosqlite.Connection) -> bool:
    return driver._connection is not None  # noqa: SLF001 (there is no public way to ask)


def _upgrade(connection: sqlite3.Connection, engine: AsyncEngine) -> None:
    found = jobs.version(connection)
    if not is_current(found, auto_migrate=True):
        for statement in statements_from(found, engine.dialect):
            connection.execute(statement)
