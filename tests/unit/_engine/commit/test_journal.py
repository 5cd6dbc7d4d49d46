"""Calls of the store by the journal; a record that the store refuses fails its own run only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from spine_async import (
    Step,
    StepResult,
    StoreError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._clock import SystemClock
from spine_async._engine.commit.isolation import MAX_GROUP_BYTES
from spine_async._engine.commit.journal import Journal
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._model.run_change import RunChange, RunEnd
from spine_async._model.run_claim import Busy, Claim
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore
from spine_async.testing.conformance.rows import created, new_run
from tests.unit._engine.builders import NOW


class Picky(MemoryRunStore):
    """Refuses all commits of the run `bad`."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[str]] = []

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self.groups.append([change.run_id for change in changes])
        if any(change.run_id == "bad" for change in changes):
            raise StoreError("a record was refused")
        return await super().commit(changes)


@pytest.mark.anyio
async def test_a_refused_record_does_not_affect_other_runs() -> None:
    store = Picky()
    runner = WorkflowRunner(store=store)
    together = anyio.Event()
    arrived: list[str] = []
    outcomes: dict[str, str] = {}

    async def meet(context: WorkflowContext, config: dict[str, object]) -> None:
        arrived.append(context.run_id)
        if len(arrived) == 3:
            together.set()
        await together.wait()

    async def run(run_id: str) -> None:
        try:
            outcomes[run_id] = (await runner.execute(Workflow("w", [Step.lambda_("meet", meet)]), run_id=run_id)).status
        except StoreError as exc:
            outcomes[run_id] = str(exc)

    async with anyio.create_task_group() as tasks:
        for run_id in ("good", "bad", "better"):
            tasks.start_soon(run, run_id)
    assert outcomes == {"good": "completed", "better": "completed", "bad": "a record was refused"}
    assert max(len(group) for group in store.groups) == 3


class Recording(MemoryRunStore):
    """Records the changes that it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    async def claim(self, run_id: str, owner: str, event: EventRow | None, **asked: Any) -> Claim | Busy | None:
        self.written.append(f"claim, {event.event_type if event is not None else None}")
        return await super().claim(run_id, owner, event, **asked)

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self.written.append(", ".join(visit.path for change in changes for visit in change.visits))
        return await super().commit(changes)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("override", "records_events", "written"),
    [
        (None, True, ["claim, workflow_resumed", "second"]),
        (None, False, ["claim, None", "second"]),
        ({"n": 1}, True, ["claim, None", "@resume#2", "second"]),
    ],
)
async def test_a_resume_writes_once_before_its_first_step_unless_it_changes_something(
    override: dict[str, object] | None, records_events: bool, written: list[str]
) -> None:
    store = Recording()
    seen: list[list[str]] = []

    async def stop(context: WorkflowContext, config: dict[str, object]) -> StepResult:
        return StepResult.stop("for now")

    async def look(context: WorkflowContext, config: dict[str, object]) -> None:
        seen.append(list(store.written))

    workflow = Workflow("w", [Step.lambda_("first", stop), Step.lambda_("second", look)])
    async with WorkflowRunner(store=store, config=WorkflowRunnerConfig(emit_events=records_events)) as runner:
        await runner.execute(workflow, run_id="r")
        store.written.clear()
        await runner.resume("r", params_override=override)
        events = [event.event_type async for event in runner.events("r")]
    assert seen == [written[:-1]]
    assert store.written == written
    assert events.count("workflow_resumed") == int(records_events)


class Stepwise(MemoryRunStore):
    """Each commit waits until the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[str]] = []
        self.begun = anyio.Semaphore(0)
        self.allowed = anyio.Semaphore(0)

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self.groups.append([change.run_id for change in changes])
        self.begun.release()
        await self.allowed.acquire()
        return await super().commit(changes)


@pytest.mark.anyio
async def test_a_run_that_ends_between_the_groups_of_a_large_commit_ends_once() -> None:
    """Its end is written with the rest of an earlier commit; the commit that was enqueued for it has nothing left."""
    store = Stepwise()
    journal = Journal(store, SystemClock())

    async def pending_of(run_id: str) -> PendingWrites:
        return PendingWrites(await created(store, new_run(run_id)), records_events=True)

    def event(size: int = 0) -> EventRow:
        return EventRow("noted", None, NOW, "0" * size)

    small, large = await pending_of("small"), await pending_of("large")
    small.add_events(event())
    large.add_events(*(event(MAX_GROUP_BYTES) for _ in range(3)))
    latches = [journal.enqueue(small), journal.enqueue(large)]
    await store.begun.acquire()
    small.add_events(event())
    latches.append(journal.enqueue(small))  # joins the commit of the large run, whose second group has no room for it
    store.allowed.release()
    await store.begun.acquire()
    small.close(RunEnd(RunStatus.COMPLETED, NOW))
    latches.append(journal.enqueue(small))
    for _ in range(10):
        store.allowed.release()
    with anyio.fail_after(20):
        for latch in latches:
            await latch.wait()
    assert store.groups == [["small", "large"], ["large"], ["small", "large"]]
    stored = await store.load("small")
    assert stored is not None
    assert stored.status is RunStatus.COMPLETED
