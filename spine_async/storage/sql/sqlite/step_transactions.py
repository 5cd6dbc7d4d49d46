"""Transactions of steps on SQLite, each as one job on the thread of the connection that writes.

The handler gets a synchronous connection of SQLAlchemy around the `sqlite3.Connection` of that thread. SQLAlchemy
begins and ends nothing on it: the job does. While the event loop builds the change, the thread waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, make_url
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError

from spine_async._model.run_change import RunChange
from spine_async.ports import CommitOutcome, StepTransaction
from spine_async.storage.sql.driver.handler_connection import (
    MisusedConnectionError,
    execute_guarded,
    outcome_of,
    refuse_ended,
)
from spine_async.storage.sql.sqlite.changes import commit
from spine_async.storage.sql.sqlite.errors import is_transient_on_sqlite
from spine_async.storage.sql.sqlite.jobs import fetch

_LAST_COMMIT = "SELECT epoch, commit_id FROM core_workflow_runs WHERE id = ?"
_CHECKED_EVERY = 1_000  # instructions of SQLite's virtual machine; some microseconds


class _InnerDialect(SQLiteDialect_pysqlite):
    """The dialect of a connection that belongs to somebody else, who begins and ends its transactions."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: object) -> None: ...
    def do_commit(self, dbapi_connection: object) -> None: ...
    def do_rollback(self, dbapi_connection: object) -> None: ...
    def do_close(self, dbapi_connection: object) -> None: ...


class InnerEngine:
    """Makes connections of SQLAlchemy around the connection of the writing thread, one at a time.

    One engine serves all of them, because it caches compiled statements.
    """

    def __init__(self) -> None:
        self._driver: sqlite3.Connection | None = None
        dialect = _InnerDialect(dbapi=sqlite3)
        pool = NullPool(self._connect, dialect=dialect, reset_on_return=None)  # type: ignore[arg-type]
        self._engine = Engine(pool, dialect, make_url("sqlite://"), hide_parameters=True)

    def _connect(self) -> sqlite3.Connection:
        assert self._driver is not None  # noqa: S101 - set by `connection`
        return self._driver

    @contextmanager
    def connection(self, driver: sqlite3.Connection) -> Iterator[Connection]:
        """A connection around `driver`, which is in a transaction."""
        self._driver = driver
        factories = driver.row_factory, driver.text_factory
        driver.row_factory = None  # SQLAlchemy expects plain tuples
        try:
            with self._engine.connect() as connection:
                yield connection
        finally:
            self._driver = None
            driver.row_factory, driver.text_factory = factories


@dataclass(slots=True)
class SqliteStepTransaction:
    """One transaction.

    Attributes:
        transaction: What is executed.
        engine: Makes the connection for the handler.
        seconds: Time limit; then a statement is interrupted.
        change: The change that was written; None before that.
    """

    transaction: StepTransaction
    engine: InnerEngine
    seconds: float
    change: RunChange | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _context: contextvars.Context = field(init=False)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def run(self, driver: sqlite3.Connection) -> CommitOutcome | None:
        """Execute the handler and write the change; without a committed change, both are rolled back to a savepoint."""
        driver.execute("SAVEPOINT spine_async_step")
        outcome: CommitOutcome | None = None
        try:
            with suppress(MisusedConnectionError):
                self._context.run(self._execute, driver)
            self.change = self._wait_for_change()
            if self.change is not None:
                (outcome,) = commit(driver, [self.change])
        finally:
            if driver.in_transaction:
                if outcome is not CommitOutcome.COMMITTED:
                    driver.execute("ROLLBACK TO spine_async_step")
                driver.execute("RELEASE spine_async_step")
        return outcome

    def _execute(self, driver: sqlite3.Connection) -> None:
        """Execute the handler; it can neither end the transaction nor execute a statement for too long."""
        deadline, transaction = time.monotonic() + self.seconds, self.transaction
        attempts: list[str] = []

        def authorize(action: int, operation: str | None, *_: Any) -> int:
            if action != sqlite3.SQLITE_TRANSACTION:
                return sqlite3.SQLITE_OK
            attempts.append(str(operation))
            return sqlite3.SQLITE_DENY

        driver.set_progress_handler(lambda: time.monotonic() > deadline, _CHECKED_EVERY)
        driver.set_authorizer(authorize)
        try:
            with self.engine.connection(driver) as connection:
                error = execute_guarded(transaction, connection)
        finally:
            driver.set_authorizer(None)
            driver.set_progress_handler(None, 0)
        if time.monotonic() > deadline:
            raise TimeoutError("the transaction took too long")
        if attempts or not driver.in_transaction:
            refuse_ended(transaction)
        if error is not None and is_transient(error):
            transaction.reject(error, is_transient=True)

    def _wait_for_change(self) -> RunChange | None:
        return asyncio.run_coroutine_threadsafe(self.transaction.complete(), self._loop).result()

    def found_outcome(self, driver: sqlite3.Connection) -> CommitOutcome | None:
        """The outcome of the change, after an error of its commit."""
        assert self.change is not None  # noqa: S101 - asked only for a change that was sent
        rows = fetch(driver, _LAST_COMMIT, (self.change.key,))
        return outcome_of(self.change, *rows[0]) if rows else CommitOutcome.FENCED


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed, for instance because a lock prevented this one."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, Exception) and is_transient_on_sqlite(cause)
