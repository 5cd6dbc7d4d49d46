"""Runs kept in a SQL database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.durability import Durability
from spine_async._model.record import (
    Busy,
    Claim,
    EventRow,
    NewRun,
    PastVisit,
    Renewal,
    RunChange,
    RunFilter,
    StoredRun,
    VisitRow,
)
from spine_async.ports import CommitOutcome
from spine_async.storage.sql.database import DatabaseAccess, SqlDatabase
from spine_async.storage.sql.driver.claim_rule import ClaimRequest
from spine_async.storage.sql.event_pages import read_events
from spine_async.storage.sql.schema import queries
from spine_async.storage.sql.schema.rows import Row, read_past_visits, read_run, read_visit

_NOBODY = ""  # the id of no run


class SqlRunStore:
    """Keeps runs in SQLite (through aiosqlite) or PostgreSQL (through asyncpg).

    Nothing is opened before `open` or the first other call. One connection is kept for writing until `close`; the store
    opens again when it is next used, in another event loop too.

    Args:
        database: An engine, or the URL of the database. An engine is left as it is found: no hooks, no settings that
            stay, and disposed of only where `owns_engine` says so.
        auto_migrate: Whether a missing or older schema is brought up to date at the first use.
        owns_engine: Whether `close` disposes of the engine.
        durability: What a commit outlasts on SQLite once it is acknowledged. `full`: the machine losing power, by
            `synchronous=FULL`. `process`: the process being killed; where the machine loses power or its kernel
            crashes the last commits may be gone, by `synchronous=NORMAL`. The database is consistent either way.
            PostgreSQL goes by the server's own `synchronous_commit`.

    Raises:
        StoreError: The URL is of a database that is not supported.
        DefinitionError: The engine is not an `AsyncEngine` of a supported driver, or the durability is none.
    """

    def __init__(
        self,
        database: AsyncEngine | URL | str,
        *,
        auto_migrate: bool = True,
        owns_engine: bool = False,
        durability: Durability = "full",
    ) -> None:
        self._access = DatabaseAccess(
            database, auto_migrate=auto_migrate, owns_engine=owns_engine, durability=durability
        )

    @classmethod
    def from_url(cls, url: URL | str, *, auto_migrate: bool = True, durability: Durability = "full") -> Self:
        """A store at this URL: `sqlite:///path/to/file.db`, `postgresql://user@host/database`.

        The engine is made at the first use and disposed of by `close`. A relative path is taken from the working
        directory of the first use; the folder is made by the first write.
        """
        return cls(url, auto_migrate=auto_migrate, durability=durability)

    @property
    def commits_out_of_process(self) -> bool:
        return self._access.commits_out_of_process

    async def open(self) -> None:
        if self._access.is_ready:
            return
        # A run that is not there is asked for, so that the statements of a resume are compiled, prepared and planned.
        await self.load(_NOBODY)
        await self.past_visits(_NOBODY)

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        database = await self._access.for_writing()
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
        if await self._access.for_reading() is None:
            return None
        database = await self._access.for_writing()
        with CorruptionGuard(run_id):
            return await database.claim(ClaimRequest(run_id, owner, event, ttl, over_epoch, unless_ended=unless_ended))

    async def renew(self, claims: Sequence[Claim], ttl: float) -> list[Renewal]:
        database = await self._access.for_writing()
        return await database.renew(claims, ttl) if claims else []

    async def request_stop(self, run_id: str, reason: str) -> bool:
        if await self._access.for_reading() is None:
            return False
        database = await self._access.for_writing()
        return await database.request_stop(run_id, reason)

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        database = await self._access.for_writing()
        return await database.commit(changes)

    async def load(self, run_id: str) -> StoredRun | None:
        database = await self._access.for_reading()
        if database is None:
            return None
        with CorruptionGuard(run_id):  # PostgreSQL's driver reads moments, and may not be able to
            rows = await database.read(queries.LOADS[database.dialect], {"run_id": run_id})
        return read_run(rows[0]) if rows else None

    async def visits(self, run_id: str, below: str | None = None) -> list[VisitRow]:
        if below is not None:
            # `\\` follows `[`: the range holds exactly the paths that begin with `below[`.
            between = {"from_path": f"{below}[", "to_path": f"{below}\\"}
            return [read_visit(run_id, row) for row in await self._read_of(run_id, queries.VISITS_BELOW, between)]
        return [read_visit(run_id, row) for row in await self._read_of(run_id, queries.VISITS, {})]

    async def past_visits(self, run_id: str) -> Sequence[PastVisit]:
        return read_past_visits(run_id, await self._read_of(run_id, queries.PAST_VISITS, {}))

    async def runs(self, chosen: RunFilter) -> list[StoredRun]:
        return [read_run(row) for row in await self._read(queries.list_runs(chosen), {})]

    async def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        database = await self._access.for_reading()
        with CorruptionGuard(run_id):
            return await read_events(database, run_id, after, limit) if database is not None else []

    async def delete(self, run_id: str) -> bool:
        if await self._access.for_reading() is None:
            return False
        database = await self._access.for_writing()
        return await database.delete(run_id)

    async def close(self) -> None:
        await self._access.close()

    async def _read_of(self, run_id: str, query: queries.Query, values: Mapping[str, object]) -> Sequence[Row]:
        with CorruptionGuard(run_id):
            return await self._read(query, {"run_id": run_id, **values})

    async def _read(self, query: queries.Query, values: Mapping[str, object]) -> Sequence[Row]:
        database: SqlDatabase | None = await self._access.for_reading()
        return await database.read(query, values) if database is not None else []
