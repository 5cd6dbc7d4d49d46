"""Cleanup steps are executed on every outcome of a run, but not when it is given up."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from spine_async import (
    DefinitionError,
    DuplicateStepError,
    Step,
    StepResult,
    UnknownStepError,
    Workflow,
    WorkflowContext,
)
from tests.control.conftest import Trace
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("outcome", ["completed", "failed", "stopped"])
async def test_they_come_last_on_every_outcome(place: Place, trace: Trace, outcome: str) -> None:
    def stops(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.stop("enough")

    last = {"completed": trace.step("b"), "failed": trace.failing("b"), "stopped": Step.lambda_("b", stops)}[outcome]
    workflow = Workflow("w", [trace.step("a"), last], cleanup=[trace.step("tidy", sees="a"), trace.step("close")])
    async with place.runner(work=False) as runner:
        result = await runner.execute(workflow, run_id="r")
        again = await runner.execute(workflow, run_id="r")
        events = [each.event_type async for each in runner.events("r")]
    assert (result.status, again.status, again.completed_steps) == (outcome, outcome, result.completed_steps)
    assert result.completed_steps[-2:] == ["tidy", "close"]
    assert trace.ran[-2:] == ["tidy", "close"]
    assert trace.errors["tidy"] == (None, True, {"visit": 1})
    assert events[-1] == f"workflow_{outcome}"
    assert (result.total_steps, result.compensated_steps) == (2, [])


async def test_they_run_when_a_user_stops_the_run(place: Place, trace: Trace) -> None:
    workflow = Workflow("w", [Step.wait_for_signal("approval")], cleanup=[trace.step("tidy")])
    async with place.runner(config={"park_after": 1000}) as runner:
        handle = await runner.start(workflow, run_id="r")

        async def waits() -> bool:
            return (await runner.get_run("r")).status == "waiting"

        await until(waits)
        await handle.stop("enough")
        result = await handle.result(30)
    assert (result.status, result.stop_reason, trace.ran) == ("stopped", "enough", ["tidy"])


async def test_they_run_when_the_caller_is_cancelled(place: Place, trace: Trace) -> None:
    begun = anyio.Event()

    async def waits(context: WorkflowContext, config: dict[str, Any]) -> None:
        begun.set()
        await anyio.sleep_forever()

    workflow = Workflow("w", [Step.lambda_("waits", waits)], cleanup=[trace.step("tidy")])
    async with place.runner(work=False) as runner:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: runner.execute(workflow, run_id="r"))
            await begun.wait()
            tasks.cancel_scope.cancel()
        record = await runner.get_run("r")
    assert (record.status, record.stop_reason, trace.ran) == ("stopped", "cancelled", ["tidy"])


async def test_a_cleanup_step_that_fails_fails_a_completed_run(place: Place, trace: Trace) -> None:
    """The other cleanup steps are executed all the same; a resume repeats only the cleanup."""
    cleanup = [trace.failing("tidy"), trace.step("close")]
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", [trace.step("a")], cleanup=cleanup), run_id="r")
        again = await runner.resume(
            "r", workflow=Workflow("w", [trace.step("a")], cleanup=[trace.step("tidy"), cleanup[1]])
        )
        paths = [each.path for each in await runner.list_checkpoints("r")]
    assert (result.status, result.error_step, result.error) == ("failed", "tidy", "ConnectionError: gone")
    assert again.status == "completed"
    assert trace.ran == ["a", "tidy", "close", "tidy", "close"]
    assert paths == ["a", "close", "tidy#2", "close#2"]


async def test_a_cleanup_step_that_fails_does_not_change_another_outcome(memory: Place, trace: Trace) -> None:
    workflow = Workflow("w", [trace.failing("a")], cleanup=[trace.failing("tidy")])
    async with memory.runner() as runner:
        result = await runner.execute(workflow)
    assert (result.status, result.error_step, result.failed_steps) == ("failed", "a", ["a", "tidy"])


@pytest.mark.parametrize("options", [{"on_error": "continue"}, {"catch": {"*": "close"}}])
async def test_a_failure_that_the_cleanup_handles_is_none(memory: Place, trace: Trace, options: dict[str, Any]) -> None:
    cleanup = [trace.failing("tidy", **options), trace.step("close")]
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [trace.step("a")], cleanup=cleanup))
    assert (result.status, trace.ran) == ("completed", ["a", "tidy", "close"])


async def test_a_resume_after_a_failure_cleans_up_once_more(place: Place, trace: Trace) -> None:
    cleanup = [trace.step("tidy")]
    async with place.runner(work=False) as runner:
        for last in (trace.failing("b"), trace.failing("b")):
            workflow = Workflow("w", [trace.step("a"), last], cleanup=cleanup)
            result = await (runner.execute(workflow, run_id="r") if not trace.ran else runner.resume("r"))
            assert result.status == "failed"
    async with place.runner(work=False) as other:
        result = await other.resume("r", workflow=Workflow("w", [trace.step("a"), trace.step("b")], cleanup=cleanup))
        paths = [each.path for each in await other.list_checkpoints("r")]
    assert (result.status, result.completed_steps) == ("completed", ["a", "tidy", "b"])
    assert trace.ran == ["a", "b", "tidy", "b", "tidy", "b", "tidy"]
    assert paths == ["a", "tidy", "tidy#2", "b", "tidy#3"]


async def test_a_shutdown_during_the_cleanup_gives_the_run_up(database_url: str, trace: Trace) -> None:
    """Another runner continues with the cleanup, and nothing is repeated; a shutdown before begins none."""
    place, begun = Place(database_url), anyio.Event()
    is_first = True

    async def tidy(context: WorkflowContext, config: dict[str, Any]) -> None:
        if is_first:
            begun.set()
            await anyio.sleep_forever()
        trace.ran.append("tidy")

    cleanup = [trace.step("early"), Step.lambda_("tidy", tidy)]
    workflow = Workflow("w", [trace.step("a"), trace.failing("b")], cleanup=cleanup)
    async with place.runner() as runner:
        await runner.start(workflow, run_id="r")
        await begun.wait()
    is_first = False
    async with place.runner(work=False) as looker:
        assert (await looker.get_run("r")).status == "pending"
    async with place.runner(workflows=[workflow]) as other:
        result = await other.handle("r").result(30)
    assert (result.status, result.error_step) == ("failed", "b")
    assert trace.ran == ["a", "b", "early", "tidy"]


async def test_a_cleanup_that_waits_is_parked(database_url: str, trace: Trace) -> None:
    """A stop has no effect any more: the outcome is decided."""
    place = Place(database_url)
    workflow = Workflow("w", [trace.step("a")], cleanup=[Step.wait_for_signal("confirmed"), trace.step("tidy")])
    async with place.runner(workflows=[workflow], config={"park_after": 0}) as runner:
        handle = await runner.start(workflow, run_id="r")

        async def parked() -> bool:
            return (await runner.get_run("r")).status == "waiting" and not runner._active_runs.run_ids

        await until(parked)
        await handle.stop("too late")
        await handle.signal("confirmed")
        result = await handle.result(30)
    assert (result.status, trace.ran) == ("completed", ["a", "tidy"])


def test_definitions_that_make_no_sense_are_refused(trace: Trace) -> None:
    a, b = trace.step("a"), trace.step("b")
    with pytest.raises(DuplicateStepError, match="step 'a': a step and a cleanup step have this name"):
        Workflow("w", [a], cleanup=[a])
    with pytest.raises(UnknownStepError, match="step 'b': it jumps to 'a', which is not a step"):
        Workflow("w", [a], cleanup=[trace.step("b", next_step="a")])
    with pytest.raises(DefinitionError, match="cleanup is a single step; pass a list of steps"):
        Workflow("w", [a], cleanup=b)  # type: ignore[arg-type]


def test_a_workflow_inside_of_a_run_has_no_cleanup_steps(trace: Trace) -> None:
    inner = Workflow("inner", [trace.step("a")], cleanup=[trace.step("b")])
    steps = [
        Step.map("s", items=[1], iterator=inner),
        Step.parallel("s", {"one": inner}),
        Step.workflow("s", inner),
    ]
    for step in steps:
        with pytest.raises(DefinitionError, match=r"step 's': .*give them to the outermost workflow, or execute the"):
            Workflow("w", [step])
        with pytest.raises(DefinitionError, match="step 's': the workflow inside of it has cleanup steps"):
            Workflow("w", [trace.step("first")], cleanup=[step])
    assert Workflow("w", [Step.workflow("s", inner, queue="default")]).step_names == ("s",)
