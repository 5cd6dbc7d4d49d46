"""What the writes of the SQLite store read does not depend on how many other runs the file holds."""

from __future__ import annotations

import importlib
import pkgutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio.to_thread
import pytest

from spine_async._model.run_change import Release, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.status import RunStatus
from spine_async.storage import SqlRunStore, sql
from spine_async.storage.sql.sqlite import due_runs, inbox, jobs, sweep
from spine_async.testing.conformance.due_rows import due_run, message, request
from spine_async.testing.conformance.rows import change, moment, new_run
from tests.storage.instructions import instructions

_VERBS = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH ")
_FOR_LISTINGS = ("core_workflow_runs_by_status", "core_workflow_runs_by_workflow")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqlRunStore]:
    store = SqlRunStore.from_url(f"sqlite:///{file}", durability="process")
    await store.create([])
    yield store
    await store.close()


def statements() -> Iterator[tuple[str, str]]:
    """The name and the text of each whole statement of the functions of plain connections."""
    package = importlib.import_module(f"{sql.__name__}.sqlite")
    for module in pkgutil.iter_modules(package.__path__):
        names = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
        for name, value in names.items():
            if isinstance(value, str) and value.startswith(_VERBS) and sqlite3.complete_statement(f"{value};"):
                yield f"{module.name}.{name}", value


async def test_only_listings_read_the_runs_of_a_status(store: SqlRunStore, file: Path) -> None:
    """The index of a status has as many entries as there are runs with it, and SQLite likes to use it."""
    plans = {}
    with closing(sqlite3.connect(file)) as connection:
        for name, statement in statements():
            values = (None,) * statement.count("?")
            try:
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            except sqlite3.OperationalError:  # a part of statements
                continue
            plans[name] = [row[3] for row in plan]
    assert {"sweep._READY_BY_NEWS", "jobs._DELETE_UNUSED", "leases._CLAIM"} <= plans.keys()
    wrong = {name: plan for name, plan in plans.items() if any(each in line for each in _FOR_LISTINGS for line in plan)}
    assert wrong == {}


async def fill(store: SqlRunStore, count: int) -> None:
    """So many parked, ready and ended runs more. Held runs are read by each look, because each has a lease."""
    end = RunEnd(RunStatus.FAILED, moment(60))
    await store.commit([change(claim, end=end) for claim in await held(store, "failed", count)])
    release = Release(status=RunStatus.WAITING, awaits_messages=True)
    parking = [change(claim, status=RunStatus.WAITING) for claim in await held(store, "parked", count)]
    await store.commit([replace(each, release=release) for each in parking])
    await store.create([due_run(f"ready-{count}-{number}", queue="other") for number in range(count)])


async def held(store: SqlRunStore, name: str, count: int) -> list[Claim]:
    claims = await store.create([new_run(f"{name}-{count}-{number}") for number in range(count)])
    return [claim for claim in claims if claim is not None]


def wake(connection: sqlite3.Connection) -> None:
    inbox.send(connection, message(run_id="parked-10-1"))
    assert sweep.sweep(connection, (), (), ()).made_ready


def delete(connection: sqlite3.Connection) -> None:
    assert jobs.delete_unused(connection, ["failed-10-1"]) == ["failed-10-1"]


def delete_ended(connection: sqlite3.Connection) -> None:
    assert jobs.delete(connection, "failed-10-2", only_ended=True)


def claim(connection: sqlite3.Connection) -> None:
    assert due_runs.claim_due(connection, request(queues=frozenset({"other"}), limit=1))


@pytest.mark.parametrize("work", [wake, delete, delete_ended, claim])
async def test_other_runs_cost_nothing(
    store: SqlRunStore, file: Path, work: Callable[[sqlite3.Connection], None]
) -> None:
    costs = []
    for count in (10, 1000):
        await fill(store, count)
        costs.append(await anyio.to_thread.run_sync(instructions, file, work))
    assert costs[1] <= costs[0] + 200, costs
