"""Runs that are resumed in the background."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint

from spine_async import (
    DefinitionError,
    Queue,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunNotResumableError,
    RunStatus,
    Step,
    StepError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async.storage import MemoryRunStore
from spine_async.storage.port import CommitOutcome, RunChange
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until


class Mended:
    """A workflow whose second step fails until it is mended, and then ends when its gate opens."""

    def __init__(self) -> None:
        self.firsts = 0
        self.is_mended = False
        self.begun = anyio.Event()
        self.gate = anyio.Event()
        self.flow = Workflow("mended", [Step.lambda_("first", self._first), Step.lambda_("second", self._second)])

    async def _first(self, context: WorkflowContext, config: Config) -> None:
        self.firsts += 1

    async def _second(self, context: WorkflowContext, config: Config) -> Mapping[str, object]:
        if not self.is_mended:
            raise StepError("not yet", category="VALIDATION")
        self.begun.set()
        await self.gate.wait()
        return {"by": context.params.get("by")}


@pytest.fixture
def mended() -> Mended:
    return Mended()


async def test_a_failed_run_continues_in_the_background(place: Place, mended: Mended) -> None:
    async with place.runner() as runner:
        assert (await runner.execute(mended.flow, run_id="r", params={"by": "Ada"})).status is RunStatus.FAILED
        mended.is_mended = True
        with anyio.fail_after(30):
            handle = await runner.resume_in_background("r", params_override={"by": "Eve"})
            assert await handle.status() is RunStatus.RUNNING
            await mended.begun.wait()
            with pytest.raises(RunBusyError):
                await runner.resume_in_background("r")
            mended.gate.set()
            result = await handle.result()
        assert (result.status, result.context.get_output("second")) == (RunStatus.COMPLETED, {"by": "Eve"})
        assert mended.firsts == 1
        with pytest.raises(RunNotResumableError, match="has completed"):
            await runner.resume_in_background("r")


async def test_a_run_that_cannot_continue_now_is_refused(place: Place, mended: Mended) -> None:
    limited = Queue("one", concurrency=1)
    async with place.runner(queues=[limited], workflows=[mended.flow]) as runner:
        failed = await runner.enqueue(mended.flow, run_id="failed", queue="one")
        assert (await failed.result(30)).status is RunStatus.FAILED
        mended.is_mended = True
        await runner.enqueue(mended.flow, run_id="holder", queue="one")
        await mended.begun.wait()
        with pytest.raises(RunConflictError, match="its queue has no room; try again later"):
            await runner.resume_in_background("failed")
        await runner.enqueue(mended.flow, run_id="later", delay=3600)
        with pytest.raises(RunConflictError, match="is not due yet"):
            await runner.resume_in_background("later")
        with pytest.raises(RunNotFoundError):
            await runner.resume_in_background("none")
        mended.gate.set()


class LateAnswers(MemoryRunStore):
    """Stores the end of a run, and answers when its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        outcomes = await super().commit(changes)
        if any(change.end is not None for change in changes):
            await self.gate.wait()
        return outcomes


@pytest.mark.parametrize("in_background", [True, False])
async def test_a_run_whose_end_others_have_seen_is_not_busy(mended: Mended, *, in_background: bool) -> None:
    """The commit is stored, but its answer has not arrived."""
    store = LateAnswers()
    async with WorkflowRunner(store=store) as runner:
        handle = await runner.start(mended.flow, run_id="r")

        async def has_failed() -> bool:
            return await handle.status() is RunStatus.FAILED

        await until(has_failed)
        mended.is_mended = True
        mended.gate.set()
        resume = runner.resume_in_background if in_background else runner.resume
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_opening_at_last, resume, store)
            for _ in range(20):
                await checkpoint()
            store.gate.set()
        assert (await handle.result(30)).status is RunStatus.COMPLETED


async def _opening_at_last(resume: Callable[[str], Awaitable[object]], store: LateAnswers) -> None:
    try:
        await resume("r")
    finally:
        store.gate.set()  # or a failure would wait for it


async def test_a_run_is_resumed_only_by_an_entered_runner(place: Place, mended: Mended) -> None:
    runner = place.runner()
    with pytest.raises(DefinitionError, match=r"resume_in_background\(\) needs an entered runner"):
        await runner.resume_in_background("r")


async def test_the_known_workflows_can_be_read_and_not_changed(place: Place, mended: Mended) -> None:
    runner = place.runner(workflows=[mended.flow])
    assert dict(runner.workflows) == {"mended": mended.flow}
    with pytest.raises(TypeError):
        runner.workflows["other"] = mended.flow  # type: ignore[index]
