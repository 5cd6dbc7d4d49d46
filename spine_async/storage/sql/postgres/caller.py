"""Runs functions in a transaction of the caller, through its SQLAlchemy connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from sqlalchemy import Connection, RootTransaction, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from spine_async.errors import DefinitionError
from spine_async.storage.sql.postgres.background import end_tasks

if TYPE_CHECKING:
    import asyncpg

    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

ResultT = TypeVar("ResultT")

_NO_TRANSACTION = "connection is in no transaction; call this inside of `async with connection.begin()`"
_FAILED = "a statement has failed in the transaction of connection, so PostgreSQL rolls it back; begin another one"
_AUTOCOMMIT = "connection commits each statement by itself (AUTOCOMMIT), so it has no transaction"

# A table has the same oid for all who see it, and another one in any other schema. The time at which the server started
# distinguishes two servers.
IDENTITY = (
    "SELECT (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())::bigint, "
    "to_regclass('core_workflow_runs')::oid::bigint, pg_postmaster_start_time()::text"
)
"""What distinguishes the databases and schemas in which runs are stored."""

_IN_FAILED_TRANSACTION = "25P02"
_POLL = 0.001
_LONGEST_WAIT = 30.0


async def driver_in_transaction(connection: AsyncConnection, is_own: Callable[[object], Awaitable[bool]]) -> Driver:
    """The driver of the connection, whose transaction has begun.

    Args:
        connection: The connection of the caller.
        is_own: Whether the runs are stored in the database with this identity.

    Raises:
        DefinitionError: The connection is in no transaction, or in one that has failed, or belongs to another database.
    """
    if not connection.in_transaction():
        raise DefinitionError(_NO_TRANSACTION)
    # Through SQLAlchemy, which begins the transaction of the driver with the first statement.
    try:
        identity = tuple((await connection.exec_driver_sql(IDENTITY)).one())
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) == _IN_FAILED_TRANSACTION:
            raise DefinitionError(_FAILED) from None
        raise
    raw = await connection.get_raw_connection()
    driver: Driver = raw.driver_connection  # type: ignore[assignment]
    if not driver.is_in_transaction():
        raise DefinitionError(_AUTOCOMMIT)
    if not await is_own(identity):
        raise DefinitionError(
            "connection belongs to another database, or its search path leads to another schema, than the runs"
        )
    return driver


class CommitWatch:
    """Calls a function after the commit of a caller's transaction, and not after a rollback.

    Args:
        after_commit: Called in the event loop.
    """

    def __init__(self, after_commit: Callable[[], None]) -> None:
        self._after_commit = after_commit
        self._watched: dict[Connection, RootTransaction] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, connection: AsyncConnection) -> None:
        """Watch the current transaction of the connection."""
        sync = connection.sync_connection
        transaction = sync.get_transaction() if sync is not None else None
        if sync is None or transaction is None or sync in self._watched:
            return
        self._watched[sync] = transaction
        event.listen(sync, "commit", self._on_commit)
        event.listen(sync, "rollback", self._forget)

    async def close(self) -> None:
        """Wait for no commit any more."""
        self._watched.clear()
        await end_tasks(list(self._tasks))

    def _on_commit(self, connection: Connection) -> None:
        """Called by SQLAlchemy just before it commits."""
        transaction = self._watched.pop(connection, None)
        if transaction is not None:
            task = asyncio.get_running_loop().create_task(self._wait(transaction))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _forget(self, connection: Connection) -> None:
        """Called by SQLAlchemy just before it rolls back."""
        self._watched.pop(connection, None)

    async def _wait(self, transaction: RootTransaction) -> None:
        """Wait until the commit is done; SQLAlchemy has no event for it."""
        deadline = asyncio.get_running_loop().time() + _LONGEST_WAIT
        while transaction.is_active and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        self._after_commit()


async def in_savepoint(driver: Driver, job: Callable[[Driver], Awaitable[ResultT]]) -> ResultT:
    """Run the job; if it fails, the transaction of the caller is as before."""
    async with driver.transaction():
        return await job(driver)
