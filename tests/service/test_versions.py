"""Runs of other versions of a workflow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from spine_async import (
    RunHandle,
    RunNotResumableError,
    RunStatus,
    Step,
    Workflow,
    WorkflowChangedError,
    WorkflowContext,
    WorkflowResult,
)
from tests.service.flows import Config
from tests.service.places import Place
from tests.service.services import until
from tests.service.test_parking import is_parked

Begun = list[str]
Make = Callable[..., Workflow]


@pytest.fixture
def begun() -> Begun:
    return []


@pytest.fixture
def make(begun: Begun) -> Make:
    def make(*steps: str, version: int = 1) -> Workflow:
        async def note(context: WorkflowContext, config: Config) -> None:
            begun.append(f"{context.run_id}/{context.step_name} v{version}")

        built = [Step.wait(name, 0.5) if name.startswith("nap") else Step.lambda_(name, note) for name in steps]
        return Workflow("flow", built, version=version)

    return make


async def test_a_run_of_a_higher_version_is_not_claimed(place: Place, make: Make, begun: Begun) -> None:
    old, new = make("a", "b"), make("a", "b", "c", version=2)
    async with place.runner(work=False) as producer:
        higher = await producer.enqueue(new, run_id="new", priority=-1)
        async with place.runner(workflows=[old]) as worker:
            lower = await producer.enqueue(old, run_id="old")
            assert (await lower.result(timeout=10)).completed_steps == ["a", "b"]
            assert await worker.recover() == []
            assert await higher.status() == RunStatus.PENDING
            assert begun == ["old/a v1", "old/b v1"]
        async with place.runner(workflows=[new]):
            assert (await higher.result(timeout=10)).completed_steps == ["a", "b", "c"]


async def test_resume_of_a_run_of_a_higher_version_is_refused(place: Place, make: Make, begun: Begun) -> None:
    old, new = make("a"), make("a", version=2)
    async with place.runner(work=False) as runner:
        handle = await runner.enqueue(new, run_id="r")
        with pytest.raises(WorkflowChangedError, match="r"):
            await runner.resume("r", workflow=old)
        await handle.stop()
        with pytest.raises(WorkflowChangedError, match="r"):
            await runner.resume("r", workflow=old)
        assert await handle.status() == RunStatus.STOPPED
        assert begun == []
        assert (await runner.resume("r", workflow=new)).status == "completed"


async def test_a_run_of_a_lower_version_is_claimed(place: Place, make: Make, begun: Begun) -> None:
    async with place.runner(work=False) as producer, place.runner(workflows=[make("a", "b", version=2)]):
        handle = await producer.enqueue(make("a"), run_id="r")
        assert (await handle.result(timeout=10)).completed_steps == ["a", "b"]
    assert begun == ["r/a v2", "r/b v2"]


async def test_a_parked_run_of_a_higher_version_is_left_alone(place: Place, make: Make, begun: Begun) -> None:
    old, new = make("a", "nap", "b"), make("a", "nap", "b", "c", version=2)
    async with place.runner(work=False) as producer:
        async with place.runner(workflows=[new], config={"park_after": 0}):
            handle = await producer.enqueue(new, run_id="r")
            await until(lambda: is_parked(handle))
        due_at = (await handle.record()).due_at
        assert due_at is not None
        async with place.runner(workflows=[old], config={"park_after": 0}):
            await until(lambda: datetime.now(UTC) > due_at)
            sentinel = await producer.enqueue(old, run_id="sentinel")
            await sentinel.result(timeout=10)
            assert (await handle.record()).completed_at is None
        async with place.runner(workflows=[new], config={"park_after": 0}):
            assert (await handle.result(timeout=10)).completed_steps == ["a", "nap", "b", "c"]
    assert [entry for entry in begun if entry.startswith("r/")] == ["r/a v2", "r/b v2", "r/c v2"]


async def test_a_due_run_whose_steps_do_not_fit_is_released_for_a_minute(
    place: Place, make: Make, begun: Begun, caplog: pytest.LogCaptureFixture
) -> None:
    stored, changed = make("a", "nap", "b"), make("x", "nap", "b")
    async with place.runner(work=False) as producer:
        async with place.runner(workflows=[stored], config={"park_after": 0}):
            handle = await producer.enqueue(stored, run_id="misfit")
            await until(lambda: is_parked(handle))
        with caplog.at_level(logging.WARNING, logger="spine_async"):
            async with place.runner(workflows=[changed], config={"park_after": 0, "max_claims": 1}):
                await until(lambda: _is_put_off(handle))
                sentinel = await producer.enqueue(changed, run_id="sentinel")
                await sentinel.result(timeout=10)
        record = await handle.record()
        assert record.status in {RunStatus.PENDING, RunStatus.WAITING}
        assert record.error is None
        assert [entry for entry in begun if entry.startswith("misfit/")] == ["misfit/a v1"]
        logged = [entry for entry in caplog.records if "misfit" in entry.getMessage()]
        assert len(logged) == 1, [entry.getMessage() for entry in logged]
        with anyio.fail_after(10), pytest.raises(WorkflowChangedError, match="misfit"):
            await producer.resume("misfit", workflow=changed)


async def _is_put_off(handle: RunHandle) -> bool:
    due_at = (await handle.record()).due_at
    return due_at is not None and timedelta(seconds=50) < due_at - datetime.now(UTC) <= timedelta(seconds=60)


async def note_output(context: WorkflowContext, config: Config) -> dict[str, object]:
    return {"by": context.step_name}


async def breaks(context: WorkflowContext, config: Config) -> None:
    raise ValueError("broken")


def story(*steps: str, version: int = 1) -> Workflow:
    """A workflow of quick steps; the step `breaks` fails."""
    handlers = {"breaks": breaks}
    built = [Step.lambda_(name, handlers.get(name, note_output)) for name in steps]
    return Workflow("story", built, version=version)


def shown(result: WorkflowResult) -> dict[str, object]:
    return {
        "status": result.status,
        "completed": result.completed_steps,
        "failed": result.failed_steps,
        "error": (result.error_step, result.error),
        "outputs": dict(result.context.outputs),
        "params": dict(result.context.params),
    }


@pytest.mark.parametrize("creator", [1, 2], ids=["begun by the same version", "begun by the newer version"])
@pytest.mark.parametrize("last", ["z", "breaks"])
async def test_every_call_returns_what_a_newer_version_has_ended(place: Place, creator: int, last: str) -> None:
    old, new = story("a", "b"), story("a", "b", last, version=2)
    async with place.runner(work=False) as producer:
        handle = await producer.enqueue(old if creator == 1 else new, params={"day": 1}, run_id="r")
        async with place.runner(workflows=[new]):
            first = await handle.result(timeout=10)
    if last == "z":
        assert (first.status, first.completed_steps) == ("completed", ["a", "b", "z"])
    else:
        assert (first.status, first.completed_steps, first.failed_steps) == ("failed", ["a", "b"], ["breaks"])
    async with place.runner(workflows=[old]) as runner:
        with anyio.fail_after(10):
            assert shown(await runner.handle("r").result()) == shown(first)
            assert shown(await runner.execute(old, params={"day": 1}, run_id="r")) == shown(first)
            assert shown(await (await runner.start(old, params={"day": 1}, run_id="r")).result()) == shown(first)
            assert shown(await (await runner.enqueue(old, params={"day": 1}, run_id="r")).result()) == shown(first)
            if last == "z" or creator == 2:  # else the old definition fits what has finished
                with pytest.raises(RunNotResumableError if last == "z" else WorkflowChangedError):
                    await runner.resume("r", workflow=old)
        assert (await runner.get_run("r")).status == first.status


async def test_what_an_older_version_has_ended_is_returned_although_its_steps_are_gone(place: Place) -> None:
    async with place.runner() as runner:
        first = await runner.execute(story("a", "b", "breaks"), run_id="r")
    async with place.runner() as runner:
        for new in (story("b", "a", version=2), story("a", "b", "breaks", "c", version=2)):
            assert shown(await runner.execute(new, run_id="r")) == shown(first)
            assert shown(await runner.handle("r").result()) == shown(first)


async def test_an_ended_fork_of_a_newer_version_is_returned(place: Place) -> None:
    old, new = story("a", "breaks"), story("a", "b", version=2)
    async with place.runner() as runner:
        await runner.execute(old, run_id="source")
        forked = await runner.fork("source", "a", new_run_id="fork", workflow=new)
        first = await forked.result(timeout=10)
        assert first.completed_steps == ["a", "b"]
    async with place.runner() as runner:
        again = await runner.fork("source", "a", new_run_id="fork", workflow=old)
        assert shown(await again.result(timeout=10)) == shown(first)


async def test_calls_wait_for_a_run_that_a_newer_version_executes(place: Place) -> None:
    held, gate, results = anyio.Event(), anyio.Event(), list[WorkflowResult]()

    async def hold(context: WorkflowContext, config: Config) -> None:
        held.set()
        await gate.wait()

    old = story("a", "b")
    new = Workflow("story", [*story("a", "z").steps, Step.lambda_("hold", hold)], version=2)
    async with place.runner(work=False) as caller, place.runner(workflows=[new]), anyio.create_task_group() as tasks:
        await caller.enqueue(old, run_id="r")
        await held.wait()
        handle = await caller.start(old, run_id="r")  # it finds the finished step `z`, which its definition lacks

        async def call() -> None:
            results.append(await caller.execute(old, run_id="r"))

        tasks.start_soon(call)
        gate.set()
        results.append(await handle.result(timeout=10))
    assert [result.completed_steps for result in results] == [["a", "z", "hold"]] * 2


async def test_a_run_that_a_newer_version_has_left_unfinished_is_refused(place: Place) -> None:
    old, new = story("a", "b"), Workflow("story", [*story("a", "z").steps, Step.wait("nap", 60)], version=2)
    async with place.runner(work=False) as caller:
        async with place.runner(workflows=[new]) as worker:
            handle = await worker.enqueue(old, run_id="r")
            await until(lambda: is_parked(handle))
        with anyio.fail_after(10), pytest.raises(WorkflowChangedError, match="'z' is missing"):
            await caller.resume("r", workflow=old)
        assert await caller.handle("r").status() == RunStatus.WAITING
