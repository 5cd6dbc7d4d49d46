"""Ended runs are removed by a policy: by hand, and in the background of working runners."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from spine_async import (
    DefinitionError,
    RetentionPolicy,
    RunNotFoundError,
    RunNotResumableError,
    RunStatus,
    Step,
    StepResult,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async._clock import SystemClock
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.places import Place
from tests.storage.plain_sql import execute

pytestmark = pytest.mark.anyio

OLD = timedelta(days=2)


class LaterClock(SystemClock):
    """The clock of a runner two days later."""

    def now(self) -> datetime:
        return super().now() + OLD


async def work(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
    if context.params.get("fails") and not context.metadata.get("resumed"):
        return StepResult.fail("no such order")
    return StepResult.stop("enough") if context.params.get("stops") else StepResult.ok({"n": 1})


FLOW = Workflow("flow", [Step.lambda_("a", work), Step.lambda_("b", work)])
OTHER = Workflow("other", [Step.lambda_("a", work)])


async def fill(runner: WorkflowRunner) -> None:
    await runner.execute(FLOW, run_id="completed")
    await runner.execute(FLOW, params={"fails": True}, run_id="failed")
    await runner.execute(FLOW, params={"stops": True}, run_id="stopped")
    await runner.enqueue(FLOW, run_id="due", queue="nobody")


async def stored(runner: WorkflowRunner) -> list[str]:
    return [run.run_id for run in await runner.list_runs(order="oldest")]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (RetentionPolicy(), ["completed", "failed", "stopped", "due"]),
        (RetentionPolicy(completed=OLD / 2), ["failed", "stopped", "due"]),
        (RetentionPolicy(completed=OLD * 2), ["completed", "failed", "stopped", "due"]),
        (RetentionPolicy(failed=OLD / 2, stopped=OLD * 2), ["completed", "stopped", "due"]),
        (RetentionPolicy(completed=1, failed=1, stopped=1), ["due"]),
        (RetentionPolicy(completed=1, failed=1, stopped=1, keep_last=1), ["stopped", "due"]),
        (RetentionPolicy(completed=1, failed=OLD * 2, keep_last=1), ["failed", "stopped", "due"]),
        (RetentionPolicy(keep_last=2), ["failed", "stopped", "due"]),
        (RetentionPolicy(keep_last=3), ["completed", "failed", "stopped", "due"]),
    ],
)
async def test_the_policy_decides(place: Place, policy: RetentionPolicy, left: list[str]) -> None:
    async with place.runner(work=False) as runner:
        await fill(runner)
    async with place.runner(work=False, clock=LaterClock(), config={"retention": policy}) as later:
        assert await later.prune() == 4 - len(left)
        assert await stored(later) == left
        assert await later.prune() == 0


async def test_the_newest_runs_are_kept_for_each_workflow(place: Place) -> None:
    async with place.runner(work=False) as runner:
        for number in range(3):
            await runner.execute(FLOW, run_id=f"flow-{number}")
        await runner.execute(OTHER, run_id="other-0")
        assert await runner.prune(RetentionPolicy(keep_last=1)) == 2
        assert await stored(runner) == ["flow-2", "other-0"]


async def test_no_row_of_a_removed_run_is_left(database: Place) -> None:
    async with database.runner(work=False) as runner:
        await fill(runner)
        await runner.signal("stopped", "go", 1)
        assert await runner.prune(RetentionPolicy(completed=0, failed=0, stopped=0)) == 3
    assert orphans(database) == 0


def orphans(place: Place) -> int:
    assert place.url is not None
    counts = (
        f"(SELECT count(*) FROM core_workflow_{table} WHERE run NOT IN (SELECT id FROM core_workflow_runs))"
        for table in ("steps", "event_log", "inbox")
    )
    ((found,),) = execute(place.url, f"SELECT {' + '.join(counts)}")
    return int(found)


async def test_a_child_stays_until_its_parent_has_ended(database: Place) -> None:
    assert database.url is not None
    policy = RetentionPolicy(completed=0, failed=0, stopped=0)
    async with database.runner(work=False) as runner:
        await fill(runner)
        for child, parent in (("completed", "due"), ("failed", "stopped"), ("stopped", "removed long ago")):
            execute(database.url, f"UPDATE core_workflow_runs SET parent_run_id = '{parent}' WHERE run_id = '{child}'")
        assert await runner.prune(policy) == 2
        assert await stored(runner) == ["completed", "due"]
        await runner.stop("due")
        assert await runner.prune(policy) == 2


async def test_many_runs_are_removed_in_small_batches() -> None:
    store = FaultInjectingStore(MemoryRunStore())
    wide = Workflow("wide", [Step.map("m", items=list(range(1200)), iterator=work, collect=False)])
    async with WorkflowRunner(store=store, work=False) as runner:
        for number in range(3):
            await runner.execute(wide, run_id=f"wide-{number}")
        await asyncio.gather(*(runner.execute(OTHER) for _ in range(250)))
        assert await runner.prune(RetentionPolicy(completed=0)) == 253
    assert store.calls["delete"] >= 5, "at most a hundred runs, and at most one of the wide ones, at a time"


async def test_a_working_runner_removes_them_by_itself(place: Place) -> None:
    config = {"retention": RetentionPolicy(completed=0), "retention_interval": 0.02}
    async with place.runner(config=config) as first, place.runner(config=config):
        await fill(first)
        await gone(first, "completed")
        await first.execute(FLOW, run_id="again")
        await gone(first, "again")
        assert await stored(first) == ["failed", "stopped", "due"]


async def gone(runner: WorkflowRunner, run_id: str) -> None:
    async with asyncio.timeout(60):
        while run_id in await stored(runner):  # noqa: ASYNC110 - the database is what changes
            await asyncio.sleep(0.01)


async def test_without_a_policy_nothing_is_removed_and_nothing_runs(place: Place) -> None:
    async with place.runner() as runner:
        await runner.execute(FLOW, run_id="completed")
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "spine_async retention"]
        with pytest.raises(DefinitionError, match="prune\\(\\) has no policy; pass a RetentionPolicy, or set"):
            await runner.prune()
        with pytest.raises(DefinitionError, match="policy is of type int; it must be a RetentionPolicy"):
            await runner.prune(7)  # type: ignore[arg-type]


async def test_removing_harms_nobody(database: Place) -> None:
    """Runs are executed, resumed and deleted by two runners, while two others remove what has ended."""
    policy = RetentionPolicy(completed=0, failed=0, stopped=0)
    done = asyncio.Event()

    async def remove() -> int:
        removed = 0
        async with database.runner(work=False) as runner:
            while not done.is_set():
                removed += await runner.prune(policy)
                await asyncio.sleep(0.001)
            return removed + await runner.prune(policy)

    async def execute_one(runner: WorkflowRunner, number: int) -> None:
        run_id, fails = f"r{number}", number % 3 == 0
        result = await runner.execute(FLOW, params={"fails": fails}, run_id=run_id)
        assert result.status == ("failed" if fails else "completed")
        if fails:
            try:
                assert (await runner.resume(run_id)).status == "completed"
            except (RunNotFoundError, RunNotResumableError):  # it was removed before the claim
                return

    removers = [asyncio.create_task(remove()) for _ in range(2)]
    async with database.runner() as first, database.runner() as second:
        for start in range(0, 120, 20):
            numbers = range(start, start + 20)
            await asyncio.gather(*(execute_one((first, second)[number % 2], number) for number in numbers))
        done.set()
        removed = await asyncio.gather(*removers)
        assert sum(removed) == 120
        assert sum((await first.count_runs()).values()) == 0
    assert orphans(database) == 0


async def test_a_run_that_is_under_way_is_not_deleted(place: Place) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def hold(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        begun.set()
        await may_end.wait()

    async with place.runner() as runner:
        handle = await runner.start(Workflow("held", [Step.lambda_("hold", hold)]), run_id="held")
        await begun.wait()
        assert await runner.prune(RetentionPolicy(completed=0, failed=0, stopped=0)) == 0
        may_end.set()
        assert (await handle.result()).status == RunStatus.COMPLETED
        assert await runner.prune(RetentionPolicy(completed=0)) == 1
