"""Transactions of steps on PostgreSQL, each on a connection of its own.

The handler is executed in a greenlet of the event loop, by SQLAlchemy's `run_sync`. The change is written by the same
statement as that of an ordinary step, just before COMMIT. So its fence locks the row of the run only for a moment.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from spine_async._model.run_change import RunChange
from spine_async.ports import CommitOutcome, StepTransaction
from spine_async.storage.sql.driver.handler_connection import execute_guarded, outcome_of, refuse_ended
from spine_async.storage.sql.postgres.changes import write_within
from spine_async.storage.sql.postgres.errors import is_transient_on_postgres

if TYPE_CHECKING:
    Driver: TypeAlias = asyncpg.Connection[asyncpg.Record]

_TRANSACTION_ID = "SELECT txid_current()"
# The server itself ends a statement that takes too long, and the transaction of a process that has vanished. It would
# notice a connection that was closed only after the statement, and keep the locks of the transaction until then.
_BEGIN = (
    "SELECT txid_current(), set_config('statement_timeout', $1, true), "
    "set_config('idle_in_transaction_session_timeout', $1, true)"
)
# Waits for a transaction that may still be about to commit the change.
_LAST_COMMIT = "SELECT epoch, commit_id FROM core_workflow_runs WHERE id = $1 FOR NO KEY UPDATE"


@dataclass(slots=True)
class PostgresStepTransaction:
    """One transaction.

    Attributes:
        transaction: What is executed.
        seconds: Time limit.
        change: The change that was written; None before that.
    """

    transaction: StepTransaction
    seconds: float
    change: RunChange | None = field(default=None, init=False)

    async def run(self, connection: AsyncConnection, driver: Driver) -> CommitOutcome | None:
        """Execute the handler, write the change and commit. If this raises, the connection must be closed."""
        await connection.execution_options(isolation_level="READ COMMITTED")
        outer = await connection.begin()
        is_written = await self._write(connection, driver)
        await (outer.commit() if is_written else outer.rollback())
        if self.change is None:
            return None
        return CommitOutcome.COMMITTED if is_written else CommitOutcome.FENCED

    async def _write(self, connection: AsyncConnection, driver: Driver) -> bool:
        """Execute the handler and write the change; whether to commit."""
        transaction, began_mono = self.transaction, time.monotonic()
        limit = f"{math.ceil(self.seconds * 1000)}ms"
        begun = (await connection.exec_driver_sql(_BEGIN, (limit,))).one()[0]
        error = await connection.run_sync(partial(execute_guarded, transaction))
        if time.monotonic() - began_mono > self.seconds:
            raise TimeoutError("the transaction took too long")
        if error is not None and is_transient(error):
            transaction.reject(error, is_transient=True)
        elif error is None and await driver.fetchval(_TRANSACTION_ID) != begun:
            refuse_ended(transaction)
        self.change = await transaction.complete()
        return self.change is not None and await write_within(driver, self.change)

    async def found_outcome(self, driver: Driver) -> CommitOutcome | None:
        """The outcome of the change, after an error of its commit; waits for its transaction."""
        assert self.change is not None  # noqa: S101 - asked only for a change that was sent
        record = await driver.fetchrow(_LAST_COMMIT, self.change.key)
        return outcome_of(self.change, record["epoch"], record["commit_id"]) if record else CommitOutcome.FENCED


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed, for instance after a deadlock or on a new connection."""
    if isinstance(error, DBAPIError):
        cause = getattr(error.orig, "__cause__", None)  # SQLAlchemy wraps the error of the driver twice
        return error.connection_invalidated or (cause is not None and is_transient(cause))
    return isinstance(error, Exception) and is_transient_on_postgres(error)
