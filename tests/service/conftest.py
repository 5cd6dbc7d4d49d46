"""Fixtures: places where runs are stored, services on a database, and plain SQL on it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spine_async import WorkflowRunner
from spine_async.storage import MemoryRunStore, SqlRunStore
from spine_async.testing import FaultInjectingStore
from tests.crash.conftest import Rows, plain_query
from tests.service.flows import Flows, Notes
from tests.service.ledger import create_ledger
from tests.service.places import LEASE_TTL, Place
from tests.service.services import Forker, Service

StartService = Callable[..., Awaitable[Service]]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty store that runners of this process share, of each kind in turn."""
    if request.param == "memory":
        return Place(None)
    return Place(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "cleared_postgres_url"))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> FaultInjectingStore:
    """An empty store that fails and hangs as planned."""
    if request.param == "memory":
        return FaultInjectingStore(MemoryRunStore())
    return FaultInjectingStore(SqlRunStore.from_url(request.getfixturevalue("sqlite_url")))


@pytest.fixture
def database(database_url: str) -> Place:
    """An empty database of each kind in turn."""
    return Place(database_url)


@pytest.fixture
async def bank(database: Place) -> Place:
    """An empty database of each kind in turn, with a table that transactions write to."""
    await create_ledger(database)
    return database


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


@pytest.fixture
def flows(tmp_path: Path) -> Flows:
    """The workflows that the services know, with the same notes and gates."""
    return Flows(tmp_path)


@pytest.fixture
def notes(flows: Flows) -> Notes:
    return flows.notes


@pytest.fixture
async def service(database_url: str, tmp_path: Path, forker: Forker) -> AsyncIterator[StartService]:
    """Starts services: processes with an entered runner on the test's database."""
    started: list[Service] = []
    with tempfile.TemporaryDirectory(prefix="spine-") as sockets:

        async def start(*, work: bool = True, config: dict[str, Any] | None = None, **job: Any) -> Service:
            chosen = {"lease_ttl": LEASE_TTL, "drain_timeout": 0.2, "cancel_grace": 0.3, **(config or {})}
            full = {"url": database_url, "folder": str(tmp_path), "work": work, "config": chosen, **job}
            service = Service(forker, Path(sockets), full)
            started.append(service)
            await service.enter()
            return service

        yield start
        await asyncio.gather(*(service.close() for service in started))


@pytest.fixture
async def observer(database: Place) -> AsyncIterator[WorkflowRunner]:
    """A runner of the test's own process that looks and enqueues, and does not work."""
    async with database.runner(work=False) as runner:
        yield runner


@pytest.fixture
def query(database_url: str) -> Callable[..., Rows]:
    """Executes plain SQL by `sqlite3` or psycopg; does not use the library."""
    return lambda statement, *values: plain_query(database_url, statement, *values)
