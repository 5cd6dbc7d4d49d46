"""Finds calls that would wait for a transaction of their own task, which waits for the call.

SQLite has one writer at a time. A task that has written in a transaction of its own, and then calls the library without
passing its connection, would wait until the time limit of the call. SQLAlchemy reports each transaction that begins, on
any engine of this process; those on SQLite are remembered with the task that has begun them. A call of such a task asks
SQLite whether the transaction holds the write lock of the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import aiosqlite
from sqlalchemy import URL, Connection, Engine, event

from spine_async.errors import DefinitionError
from spine_async.storage.sql.driver.url import sqlite_file
from spine_async.storage.sql.sqlite.caller import holds_lock
from spine_async.storage.sql.sqlite.connections import run_on_thread

_begun: WeakKeyDictionary[asyncio.Task[Any], WeakSet[Connection]] = WeakKeyDictionary()


def note(connection: Connection) -> None:
    """Remember that the current task uses the transaction of this connection."""
    if connection.dialect.name != "sqlite":
        return
    try:
        task = asyncio.current_task()
    except RuntimeError:  # in a thread without an event loop
        return
    if task is not None:
        _begun.setdefault(task, WeakSet()).add(connection)


async def refuse_inside(url: URL) -> None:
    """Refuse a call of a task whose own transaction holds the write lock of the file at this URL.

    Raises:
        DefinitionError: It does.
    """
    task = asyncio.current_task() if _begun else None
    if task is None or task not in _begun:
        return
    file = sqlite_file(url)
    if file is None:  # in memory, where nobody else has a transaction
        return
    for connection in list(_begun[task]):
        if await _holds_lock(connection, file):
            raise DefinitionError(
                "this task has an open transaction on the database, for which the call would wait; commit first, or "
                "pass the connection to the call"
            )
        if connection.closed or not connection.in_transaction():
            _begun[task].discard(connection)


async def _holds_lock(connection: Connection, file: Path) -> bool:
    if connection.closed or not connection.in_transaction():
        return False
    driver = connection.connection.driver_connection
    if not isinstance(driver, aiosqlite.Connection) or not _is_in_transaction(driver._conn):  # noqa: SLF001 - see below
        return False  # the property of aiosqlite that gives its connection has no public name
    return await run_on_thread(driver, partial(holds_lock, file=file))


def _is_in_transaction(connection: sqlite3.Connection) -> bool:
    try:
        return connection.in_transaction
    except sqlite3.ProgrammingError:  # it was closed
        return False


event.listen(Engine, "begin", note)
