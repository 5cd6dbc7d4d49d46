"""A run that was claimed and cannot be opened, because the store fails meanwhile, is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from spine_async import Step, StoreUnavailableError, Workflow, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.run_change import RunChange
from spine_async._model.visit_filter import OWN_VISITS, VisitFilter
from spine_async._model.visit_row import VisitRow
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore
from spine_async.testing.conformance.rows import created, new_run

pytestmark = pytest.mark.anyio

FLOW = Workflow("flow", [Step.lambda_("a", lambda context, config: None)])


class Unreadable(MemoryRunStore):
    """Fails to read the visits of a run for some times."""

    failures = 0

    async def visits(self, run_id: str, chosen: VisitFilter = OWN_VISITS) -> list[VisitRow]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("no answer")
        return await super().visits(run_id, chosen)


async def test_a_worker_gives_up_a_run_that_it_cannot_read_and_tries_again() -> None:
    store = Unreadable()
    await created(store, replace(new_run("r", workflow="flow", ttl=0.0), start_from=None, workflow_version=1))
    store.failures = 1
    config = WorkflowRunnerConfig(poll_interval=0.01)
    async with WorkflowRunner(store=store, workflows=[FLOW], config=config) as runner:
        result = await runner.result("r", timeout=20)
    assert (result.status, store.failures) == ("completed", 0)


async def test_a_run_that_an_execute_cannot_read_has_no_owner_afterwards() -> None:
    store = Unreadable()
    runner = WorkflowRunner(store=store)
    handle_id = (await runner.execute(FLOW, run_id="other")).run_id
    assert handle_id == "other"
    await created(store, replace(new_run("r", workflow="flow", ttl=0.0), start_from=None, workflow_version=1))
    store.failures = 1
    with pytest.raises(StoreUnavailableError):
        await runner.resume("r", workflow=FLOW)
    stored = await store.load("r")
    assert stored is not None
    with anyio.fail_after(5):
        assert (await runner.resume("r", workflow=FLOW)).status == "completed"


class Uncommitted(MemoryRunStore):
    """Commits nothing while it is broken."""

    is_broken = False

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        if self.is_broken:
            raise StoreUnavailableError("no answer")
        return await super().commit(changes)


async def test_a_stop_that_cannot_be_recorded_leaves_the_run_without_an_owner() -> None:
    store = Uncommitted()
    runner = WorkflowRunner(store=store, workflows=[FLOW])
    await runner.enqueue(FLOW, run_id="r", delay=3600)
    store.is_broken = True
    with pytest.raises(StoreUnavailableError):
        await runner.stop("r")
    store.is_broken = False
    stored = await store.load("r")
    assert stored is not None
    assert (stored.status, stored.owner) == ("pending", None)
    assert await runner.stop("r", "enough")
    assert (await runner.get_run("r")).stop_reason == "enough"
