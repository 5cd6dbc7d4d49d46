"""`delete_run` concurrent with `resume` and other processes: an unfinished run is removed only with `force`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.errors import RunBusyError, RunConflictError, RunNotFoundError, RunNotResumableError
from spine_async.storage import SqlRunStore
from spine_async.storage.sql.driver.time_limit import TimeLimit
from spine_async.testing.conformance.rows import created, new_run


class Switch:
    """A step that fails until it is switched on, and then waits."""

    def __init__(self) -> None:
        self.is_on = False
        self.entered = anyio.Event()
        self.go_on = anyio.Event()

    async def __call__(self, context: WorkflowContext, config: object) -> None:
        if not self.is_on:
            raise ValueError("not yet")
        self.entered.set()
        await self.go_on.wait()


@pytest.fixture
async def runners(database_url: str) -> AsyncIterator[list[WorkflowRunner]]:
    made = [WorkflowRunner(config=WorkflowRunnerConfig(database_url=database_url)) for _ in range(2)]
    async with made[0], made[1]:
        yield made


async def test_a_run_that_is_resumed_elsewhere_is_not_deleted(runners: list[WorkflowRunner]) -> None:
    step = Switch()
    flow = Workflow("w", [Step.lambda_("s", step)])
    assert (await runners[0].execute(flow, run_id="r")).status is RunStatus.FAILED
    step.is_on = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: runners[0].resume("r"))
        await step.entered.wait()
        with pytest.raises(RunConflictError, match="run 'r' is running and cannot be deleted"):
            await runners[1].delete_run("r")
        step.go_on.set()
    assert (await runners[1].get_run("r")).status is RunStatus.COMPLETED
    await runners[1].delete_run("r")
    with pytest.raises(RunNotFoundError):
        await runners[1].delete_run("r")


async def test_deletions_and_resumes_at_once_leave_a_whole_run_or_none(runners: list[WorkflowRunner]) -> None:
    step = Switch()
    step.go_on.set()
    flow = Workflow("w", [Step.lambda_("s", step)])
    kept: list[str] = []
    deleted: list[str] = []

    async def resume(run_id: str) -> None:
        try:
            assert (await runners[0].resume(run_id, workflow=flow)).status is RunStatus.COMPLETED
        except (RunNotFoundError, RunNotResumableError, RunBusyError):
            return
        kept.append(run_id)

    async def delete(run_id: str, delay: int) -> None:
        for _ in range(delay):
            await anyio.lowlevel.checkpoint()
        try:
            await runners[1].delete_run(run_id)
        except RunConflictError:
            return
        deleted.append(run_id)

    ids = [f"r{number}" for number in range(40)]
    for run_id in ids:
        await runners[0].execute(flow, run_id=run_id)
    step.is_on = True
    async with anyio.create_task_group() as tasks:
        for number, run_id in enumerate(ids):
            tasks.start_soon(resume, run_id)
            tasks.start_soon(delete, run_id, number % 20)
    stored = {run.run_id for run in await runners[0].list_runs() if run.status is RunStatus.COMPLETED}
    assert stored == set(ids) - set(deleted)
    assert set(kept) | set(deleted) == set(ids)


async def test_processes_that_create_the_same_runs_in_any_order_do_not_deadlock(fresh_postgres_url: str) -> None:
    stores = [SqlRunStore(fresh_postgres_url) for _ in range(4)]
    names = [f"run-{number}" for number in range(60)]
    for store in stores:
        await store.open()

    async def create(store: SqlRunStore, turn: int, *, backwards: bool) -> None:
        runs = [new_run(f"{turn}-{name}") for name in names]
        await store.create(runs[::-1] if backwards else runs)

    for turn in range(20):
        async with anyio.create_task_group() as tasks:
            for number, store in enumerate(stores):
                tasks.start_soon(partial(create, store, turn, backwards=number % 2 == 1))
    await created(stores[0], new_run("last"))
    database = await stores[0]._database.for_writing()
    deadlocks = await database._writer.write(  # type: ignore[attr-defined]
        lambda driver: driver.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"),
        TimeLimit("the test's database", 10).call("read"),
    )
    assert deadlocks == 0
    for store in stores:
        await store.close()
