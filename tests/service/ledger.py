"""A ledger that transactions of tests write to, and commits whose answers are lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, func, insert, make_url, select
from sqlalchemy.ext.asyncio import AsyncTransaction, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from spine_async import (
    RetryPolicy,
    Workflow,
    WorkflowContext,
    WorkflowResult,
)
from spine_async.storage.sql.sqlite import jobs
from tests.crash.conftest import Rows
from tests.service.places import Place

Config = Mapping[str, object]
Query = Callable[..., Rows]
AGAIN = RetryPolicy(max_attempts=3, backoff="constant", initial_delay=0.001, jitter=False)
tables = MetaData()
ledger = Table("ledger", tables, Column("id", Integer, primary_key=True), Column("what", Text, unique=True))


class Base(DeclarativeBase): ...


class Entry(Base):
    __tablename__ = "ledger"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]


def is_sqlite(place: Place) -> bool:
    return str(place.url).startswith("sqlite")


async def create_ledger(place: Place) -> None:
    driver = "sqlite+aiosqlite" if is_sqlite(place) else "postgresql+asyncpg"
    engine = create_async_engine(make_url(str(place.url)).set(drivername=driver))
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    await engine.dispose()


def write(context: WorkflowContext, config: Config, connection: Connection) -> dict[str, object]:
    connection.execute(insert(ledger).values(what=f"{context.idempotency_key}"))
    return {"count": connection.execute(select(func.count()).select_from(ledger)).scalar_one()}


def written(query: Query) -> list[str]:
    return sorted(str(row[0]) for row in query("SELECT what FROM ledger"))


async def execute(bank: Place, flow: Workflow, **options: Any) -> WorkflowResult:
    async with bank.runner(work=False) as runner:
        return await runner.execute(flow, **{"run_id": "r", **options})


def lose_answer(bank: Place, monkeypatch: pytest.MonkeyPatch, moment: str, attempts: list[int]) -> None:
    """Let the first commit of a transaction fail, before or after the database has executed it."""
    lost = list[bool]()

    def is_due(when: str) -> bool:
        if when != moment or lost or not attempts:
            return False
        lost.append(True)
        return True

    if is_sqlite(bank):
        lose_answer_of_sqlite(monkeypatch, is_due)
        return
    commit = AsyncTransaction.commit

    async def losing_commit(self: AsyncTransaction) -> None:
        if is_due("before"):
            raise ConnectionResetError
        await commit(self)
        if is_due("after"):
            raise ConnectionResetError

    monkeypatch.setattr(AsyncTransaction, "commit", losing_commit)


def lose_answer_of_sqlite(monkeypatch: pytest.MonkeyPatch, is_due: Callable[[str], bool]) -> None:
    in_transaction = jobs.in_transaction

    def transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> Any:
        def losing(driver: sqlite3.Connection) -> Any:
            result = work(driver)
            if is_due("before"):
                raise sqlite3.OperationalError("disk I/O error")
            return result

        result = in_transaction(connection, losing)
        if is_due("after"):
            raise sqlite3.OperationalError("disk I/O error")
        return result

    monkeypatch.setattr(jobs, "in_transaction", transact)
