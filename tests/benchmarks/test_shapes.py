"""The counts behind the measurements: statements per commit, live tasks, bytes per step, imported modules."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.child import payload_text
from benchmarks.contestants.importing import FORBIDDEN
from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore

PAYLOAD = payload_text(1, 1000)


async def no_op(context: WorkflowContext, config: object) -> None:
    return None


async def give(context: WorkflowContext, config: object) -> dict[str, str]:
    return {"data": PAYLOAD}


def mapped(items: int, concurrency: int) -> Workflow:
    return Workflow("mapped", [Step.map("each", items=range(items), iterator=no_op, max_concurrency=concurrency)])


def chain(steps: int) -> Workflow:
    return Workflow("chain", [Step.lambda_(f"step_{index}", give) for index in range(steps)])


class CountingStore(MemoryRunStore):
    """Counts commits, and gives others their turn before each, as a database does."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def commit(self, changes: Sequence[Any]) -> Any:
        await asyncio.sleep(0)
        self.sizes.append(sum(len(change.visits) for change in changes))
        return await super().commit(changes)


@pytest.mark.anyio
async def test_items_that_wait_are_committed_together() -> None:
    store = CountingStore()
    (await WorkflowRunner(store=store).execute(mapped(200, 50))).raise_for_status()
    assert sum(store.sizes) == 201
    assert max(store.sizes) >= 25


@pytest.mark.anyio
async def test_runs_that_wait_are_committed_together() -> None:
    store = CountingStore()
    runner = WorkflowRunner(store=store)
    results = await asyncio.gather(*(runner.execute(chain(3)) for _ in range(40)))
    assert all(result.status == "completed" for result in results)
    assert sum(store.sizes) == 120
    assert max(store.sizes) >= 20


@pytest.mark.anyio
async def test_steps_that_follow_each_other_at_once_share_one_writer() -> None:
    """A writer begun for each commit would cost each step a turn of the loop."""
    begun: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        begun.append(str(options.get("name")))
        return asyncio.Task(work, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(factory)
    store = CountingStore()
    (await WorkflowRunner(store=store).execute(chain(100))).raise_for_status()
    assert len(store.sizes) >= 100
    assert begun.count("spine_async journal") <= 3
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "spine_async journal"]


@pytest.mark.anyio
async def test_a_group_is_one_statement_on_postgres(fresh_postgres_url: str) -> None:
    engine = create_async_engine(fresh_postgres_url)
    statements: list[str] = []

    @event.listens_for(engine.sync_engine, "connect")
    def listen(connection: Any, record: object) -> None:
        connection.driver_connection.add_query_logger(lambda asked: statements.append(asked.query))

    async with WorkflowRunner(engine) as runner:
        await runner.execute(mapped(5, 5))
        statements.clear()
        (await runner.execute(mapped(500, 50))).raise_for_status()
    await engine.dispose()
    writing = [text for text in statements if "core_workflow_steps" in text]
    assert 500 / (2 * 50) <= len(writing) < 250
    assert not any(text.strip().upper().startswith(("BEGIN", "COMMIT")) for text in statements)


@pytest.mark.anyio
async def test_a_map_has_no_more_tasks_than_workers() -> None:
    alive: list[int] = []

    async def count(context: WorkflowContext, config: object) -> None:
        alive.append(len(asyncio.all_tasks()))
        await asyncio.sleep(0)

    before = len(asyncio.all_tasks())
    each = Step.map("each", items=range(300), iterator=count, max_concurrency=7)
    (await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("counted", [each]))).raise_for_status()
    # The execution, its run, the watcher, one call of the store; and if it takes long a read of notices and a renewal.
    assert max(alive) <= before + 7 + 6


@pytest.mark.anyio
async def test_a_step_costs_what_it_adds(sqlite_url: str, tmp_path: Path) -> None:
    sizes = []
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=sqlite_url)) as runner:
        for steps in (100, 200):
            (await runner.execute(chain(steps))).raise_for_status()
            sizes.append(_bytes(tmp_path / "runs.db"))
    assert (sizes[1] - sizes[0]) / 200 <= 1.5 * len(PAYLOAD)


def test_the_import_loads_no_database_and_no_sdk() -> None:
    script = f"import sys; from spine_async import *; print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def _bytes(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * size)
