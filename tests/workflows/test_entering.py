"""Entering a runner connects to its store if possible, logs a warning if not, and creates nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from sqlalchemy import event as sa_event
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import (
    SchemaVersionError,
    Step,
    StepResult,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore, upgrade_schema
from spine_async.testing import FaultInjectingStore
from tests.storage.plain_sql import execute

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]


async def stop_once(context: WorkflowContext, config: Config) -> StepResult | None:
    return None if context.metadata.get("resumed") else StepResult.stop("for another runner")


WORKFLOW = Workflow("w", [Step.lambda_("only", stop_once)])


def at(url: str, *, auto_migrate: bool = True, work: bool = True) -> WorkflowRunner:
    return WorkflowRunner(config=WorkflowRunnerConfig(database_url=url, auto_migrate=auto_migrate), work=work)


async def test_the_first_resume_of_a_runner_that_was_entered_does_not_connect(database_url: str) -> None:
    async with at(database_url) as runner:
        await runner.execute(WORKFLOW, run_id="r")
    engine = create_async_engine(database_url)
    connected: list[object] = []
    sa_event.listen(engine.sync_engine.pool, "connect", lambda driver, record: connected.append(driver))
    async with WorkflowRunner(db_engine=engine, work=False) as runner:
        assert len(connected) == 1
        assert (await runner.resume("r", workflow=WORKFLOW)).status == "completed"
        assert len(connected) == 1
    await engine.dispose()


async def test_entering_makes_no_file(tmp_path: Path) -> None:
    async with at(f"sqlite:///{tmp_path / 'new' / 'runs.db'}") as runner:
        assert os.listdir(tmp_path) == []  # noqa: PTH208 (the async rules know pathlib only)
        await runner.execute(WORKFLOW)
        assert os.listdir(tmp_path) == ["new"]  # noqa: PTH208


@pytest.mark.parametrize("is_dry", [True, False])
async def test_entering_needs_no_store_where_nothing_is_stored(is_dry: bool) -> None:
    away = WorkflowRunnerConfig(database_url="postgresql://anna@127.0.0.1:9/orders")
    async with WorkflowRunner(config=away, dry_run=is_dry, checkpoint_enabled=is_dry) as runner:
        assert (await runner.execute(WORKFLOW)).status == "stopped"


@pytest.mark.parametrize("work", [False, True])
async def test_an_unreachable_server_is_logged_at_once_and_raised_by_execute(
    work: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with at("postgresql://anna:TOPSECRET@127.0.0.1:9/orders", work=work) as runner:
        (message,) = caplog.messages
        assert "PostgreSQL database orders at 127.0.0.1:9" in message
        assert "TOPSECRET" not in message
        with pytest.raises(StoreUnavailableError, match="orders"):
            await runner.execute(WORKFLOW)


async def test_a_schema_that_may_not_be_created_is_reported_at_once(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    if empty_database_url.startswith("sqlite"):
        execute(empty_database_url, "CREATE TABLE other (n integer)")
    async with at(empty_database_url, auto_migrate=False) as runner:
        assert "upgrade_schema" in caplog.text
        with pytest.raises(SchemaVersionError):
            await runner.execute(WORKFLOW)
        await upgrade_schema(empty_database_url)
        assert (await runner.execute(WORKFLOW)).status == "stopped"


async def test_a_store_that_fails_in_its_own_way_keeps_the_runner_from_being_entered() -> None:
    store = FaultInjectingStore(MemoryRunStore())
    store.fail("open", error=ZeroDivisionError())
    runner = WorkflowRunner(store=store)
    with pytest.raises(ZeroDivisionError):
        await runner.__aenter__()
    assert (store.calls["open"], store.calls["close"]) == (1, 1)
    async with runner:
        assert (await runner.execute(WORKFLOW)).status == "stopped"
    assert (store.calls["open"], store.calls["close"]) == (2, 2)


@pytest.mark.parametrize("native", [False, True])
async def test_cancelling_the_entering_ends_it_at_once(native: bool) -> None:
    store = FaultInjectingStore(MemoryRunStore())
    hang = store.hang("open")
    runner = WorkflowRunner(store=store)
    scope = anyio.CancelScope()

    async def enter() -> None:
        with scope:
            await runner.__aenter__()

    entering = asyncio.create_task(enter())
    await hang.reached.wait()
    entering.cancel() if native else scope.cancel()
    await asyncio.wait([entering])
    assert (entering.cancelled(), scope.cancelled_caught) == (native, not native)
    assert store.calls["close"] == 1
    async with runner:
        assert (await runner.execute(WORKFLOW)).status == "stopped"


async def test_connecting_that_is_cancelled_leaves_no_connection(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancelled in each of the first turns of the loop; nothing is logged.

    In some later turns asyncpg itself reports a cancelled connection to the event loop.
    """
    async with at(database_url) as runner:
        await runner.execute(WORKFLOW, run_id="r")
    for turns in range(60 if database_url.startswith("sqlite") else 12):
        engine = create_async_engine(database_url)
        entering = asyncio.create_task(WorkflowRunner(db_engine=engine).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering])
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await engine.dispose()
    assert caplog.messages == []
    async with at(database_url) as runner:
        assert (await runner.resume("r", workflow=WORKFLOW)).status == "completed"


class SlowToOpen(MemoryRunStore):
    """Delays each opening after the first."""

    def __init__(self) -> None:
        super().__init__()
        self.openings = 0
        self.reached, self.release = anyio.Event(), anyio.Event()

    async def open(self) -> None:
        self.openings += 1
        if self.openings > 1:
            self.reached.set()
            await self.release.wait()


def working() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "spine_async worker"]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_task_that_is_entering_prevents_draining(cancelled: bool) -> None:
    """If all other tasks have left, the task whose entering is cancelled drains the runner."""
    store, done = SlowToOpen(), anyio.Event()
    began = anyio.Event()

    async def work(context: WorkflowContext, config: Config) -> None:
        began.set()
        await done.wait()

    runner = WorkflowRunner(store=store, config=WorkflowRunnerConfig(drain_timeout=0.01))
    async with runner:
        run = asyncio.create_task(runner.execute(Workflow("w", [Step.lambda_("work", work)])))
        await began.wait()
        entering = asyncio.create_task(runner.__aenter__())
        await store.reached.wait()
    assert not run.done()
    assert len(working()) == 1
    if cancelled:
        entering.cancel()
        await asyncio.wait([entering])
        assert (await run).stop_reason == "shutdown"
        assert working() == []
        return
    store.release.set()
    await entering
    assert len(working()) == 1
    done.set()
    assert (await run).status == "completed"
    await runner.__aexit__(None, None, None)
    assert working() == []


async def test_entering_while_the_last_one_drains_begins_to_work_anew() -> None:
    began, done = anyio.Event(), anyio.Event()

    async def work(context: WorkflowContext, config: Config) -> None:
        began.set()
        await done.wait()

    runner = WorkflowRunner(store=MemoryRunStore())
    await runner.__aenter__()
    run = asyncio.create_task(runner.execute(Workflow("w", [Step.lambda_("work", work)])))
    await began.wait()
    leaving = asyncio.create_task(runner.__aexit__(None, None, None))
    await asyncio.sleep(0)
    async with runner:
        done.set()
        await leaving
        assert (await run).status in {"completed", "stopped"}
        assert len(working()) == 1
    assert working() == []


async def test_a_runner_that_was_left_can_still_recover_by_hand(tmp_path: Path) -> None:
    began = anyio.Event()

    async def hang_once(context: WorkflowContext, config: Config) -> None:
        if not began.is_set():
            began.set()
            await anyio.sleep_forever()

    config = WorkflowRunnerConfig(database_url=f"sqlite:///{tmp_path / 'runs.db'}", drain_timeout=0)
    runner = WorkflowRunner(config=config)
    async with runner:
        run = asyncio.create_task(runner.execute(Workflow("w", [Step.lambda_("only", hang_once)]), run_id="r"))
        await began.wait()
    assert (await run).stop_reason == "shutdown"
    assert [(each.run_id, each.status) for each in await runner.recover()] == [("r", "completed")]


async def test_a_runner_that_is_entered_again_asks_its_pool_for_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'runs.db'}", pool_size=3, max_overflow=0, pool_timeout=1
    )
    runner = WorkflowRunner(db_engine=engine)
    async with runner:
        await runner.execute(WORKFLOW)
        asked: list[object] = []
        sa_event.listen(engine.sync_engine.pool, "checkout", lambda driver, record, proxy: asked.append(driver))
        async with runner:
            assert (asked, caplog.messages) == ([], [])
    await engine.dispose()
