"""Runs of other versions of a workflow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from spine_async import RunHandle, RunStatus, Step, Workflow, WorkflowChangedError, WorkflowContext
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
