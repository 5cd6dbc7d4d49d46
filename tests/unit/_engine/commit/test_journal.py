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
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Busy, Claim
from spine_async._model.visit_row import EventRow
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore


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
