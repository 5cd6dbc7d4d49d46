"""A record that the store refuses fails its own run, and nobody else of the group."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from spine_async import Step, StoreError, Workflow, WorkflowContext, WorkflowRunner
from spine_async._model.record import RunChange
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore


class Picky(MemoryRunStore):
    """Refuses whatever the run `bad` has to commit."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[str]] = []

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self.groups.append([change.run_id for change in changes])
        if any(change.run_id == "bad" for change in changes):
            raise StoreError("a record was refused")
        return await super().commit(changes)


@pytest.mark.anyio
async def test_a_refused_record_spoils_nothing_for_the_others() -> None:
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
