"""Equal calls of `execute` are one run; cancelled callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from spine_async import RunBusyError, RunStatus, Step, Workflow, WorkflowContext, WorkflowResult, WorkflowRunner
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.flows import Config, Notes
from tests.service.places import Place
from tests.service.services import RemoteError, until
from tests.service.test_starting import Gated


def equal(results: list[WorkflowResult]) -> bool:
    shown = [
        (
            result.run_id,
            result.status,
            result.completed_steps,
            dict(result.context.params),
            dict(result.context.outputs),
        )
        for result in results
    ]
    return all(result == shown[0] for result in shown)


async def test_ten_equal_calls_at_once_are_one_run_with_ten_equal_results(place: Place) -> None:
    begun: list[str] = []

    async def step(context: WorkflowContext, config: Config) -> dict[str, object]:
        begun.append(context.run_id)
        await anyio.lowlevel.checkpoint()
        return {"number": len(begun)}

    flow = Workflow("equal", [Step.lambda_("one", step), Step.lambda_("two", step)])
    results: list[WorkflowResult] = []
    async with place.runner() as first, place.runner() as second, anyio.create_task_group() as tasks:

        async def call(runner: WorkflowRunner) -> None:
            results.append(await runner.execute(flow, params={"day": 1}, run_id="r"))

        for number in range(10):
            tasks.start_soon(call, (first, second)[number % 2])
    assert begun == ["r", "r"]
    assert (len(results), results[0].status) == (10, "completed")
    assert equal(results)


async def test_ten_equal_calls_of_a_runner_that_is_not_entered(place: Place) -> None:
    gated = Gated()
    runner = place.runner()
    results: list[WorkflowResult] = []

    async def call() -> None:
        results.append(await runner.execute(gated.flow, run_id="r"))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call)
        await until(lambda: gated.begun)
        gated.gate.set()
    assert gated.begun == ["r"]
    assert len(results) == 10
    assert equal(results)


async def test_equal_calls_of_two_processes_are_one_run(service: StartService, notes: Notes) -> None:
    first, second = await service(), await service()
    notes.open_gate("r")
    calls = [
        process.post("execute", workflow="gated", run_id="r", params={"day": 1}) for process in (first, second) * 5
    ]
    results = await asyncio.wait_for(asyncio.gather(*(answer for _, answer in calls)), 20)
    assert results == [results[0]] * 10
    assert results[0]["status"] == "completed"
    assert notes.begun("r") == ["first", "gated", "last"]


async def test_other_params_are_a_conflict_while_the_run_is_under_way(service: StartService, notes: Notes) -> None:
    first, second = await service(), await service()
    _, answer = first.post("execute", workflow="gated", run_id="r", params={"day": 1})
    await until(lambda: "gated" in notes.begun("r"))
    for process in (first, second):
        for what in ("execute", "start"):
            for workflow, params in (("gated", {"day": 2}), ("quick", {"day": 1})):
                with pytest.raises(RemoteError) as caught:
                    await process.ask(what, workflow=workflow, run_id="r", params=params)
                assert caught.value.kind == "RunConflictError"
    notes.open_gate("r")
    assert (await answer)["status"] == "completed"
    assert notes.begun("r") == ["first", "gated", "last"]


async def test_the_result_of_an_ended_run_is_returned_and_nothing_runs(place: Place) -> None:
    gated = Gated()
    gated.gate.set()
    async with place.runner() as runner:
        first = await runner.execute(gated.flow, run_id="r")
        again = await runner.execute(gated.flow, run_id="r")
    assert equal([first, again])
    assert gated.begun == ["r"]


async def test_a_run_held_elsewhere_is_awaited_and_taken_over_when_its_owner_dies(
    service: StartService, notes: Notes
) -> None:
    first, second = await service(), await service(work=False)
    _, lost = first.post("execute", workflow="async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    _, answer = second.post("execute", workflow="async", run_id="r")
    await first.kill()
    result = await asyncio.wait_for(answer, 15)
    assert lost.cancelled()
    assert (result["status"], result["completed_steps"]) == ("completed", ["first", "hold", "last"])
    assert notes.begun("r") == ["first", "hold", "hold", "last"]


async def test_a_run_held_elsewhere_ends_there(service: StartService, notes: Notes) -> None:
    first, second = await service(), await service()
    first.post("execute", workflow="gated", run_id="r")
    await until(lambda: "gated" in notes.begun("r"))
    _, answer = second.post("execute", workflow="gated", run_id="r")
    notes.open_gate("r")
    assert (await asyncio.wait_for(answer, 15))["status"] == "completed"
    assert {note["pid"] for note in notes.read(what="began", run="r")} == {first.pid}


async def test_execute_claims_a_due_run_of_an_owner_that_died(service: StartService, notes: Notes) -> None:
    first, second = await service(), await service(work=False)
    first.post("execute", workflow="async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    await first.kill()
    result = await second.ask("execute", workflow="async", run_id="r")
    assert result["completed_steps"] == ["first", "hold", "last"]


async def test_the_last_cancelled_caller_stops_the_run(place: Place) -> None:
    gated = Gated()
    async with place.runner() as runner:
        scopes = [anyio.CancelScope() for _ in range(3)]
        ended: list[int] = []

        async def call(number: int) -> None:
            with scopes[number]:
                await runner.execute(gated.flow, run_id="r")
            ended.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(call, number)
            await until(lambda: gated.begun)
            for number in (0, 1):
                scopes[number].cancel()
            await until(lambda: sorted(ended) == [0, 1])
            assert await runner.handle("r").status() == RunStatus.RUNNING
            scopes[2].cancel()
        record = await runner.get_run("r")
        assert record.status == RunStatus.STOPPED
        assert record.stop_reason not in {None, "shutdown", "user"}
        assert (await runner.handle("r").result(timeout=5)).status == "stopped"


async def test_a_caller_that_is_cancelled_while_others_join_does_not_stop_the_run(place: Place) -> None:
    """The other calls were made before the cancellation; they may still be reading the stored run."""
    gated = Gated()
    results: list[WorkflowResult] = []
    first = anyio.CancelScope()

    async def call_and_be_cancelled() -> None:
        with first:
            await runner.execute(gated.flow, run_id="r")

    async def call() -> None:
        results.append(await runner.execute(gated.flow, run_id="r"))

    async with place.runner() as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(call_and_be_cancelled)
        await until(lambda: gated.begun)
        tasks.start_soon(call)
        await anyio.lowlevel.checkpoint()
        first.cancel()
        gated.gate.set()
    assert [result.status for result in results] == [RunStatus.COMPLETED]


@pytest.mark.parametrize("how", ["start", "enqueue"])
async def test_a_cancelled_caller_never_stops_a_run_that_it_did_not_create(place: Place, how: str) -> None:
    gated = Gated()
    async with place.runner(workflows=[gated.flow]) as runner:
        handle = await getattr(runner, how)(gated.flow, run_id="r")
        await until(lambda: gated.begun)
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(_execute, runner, gated.flow)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert await handle.status() == RunStatus.RUNNING
        gated.gate.set()
        assert (await handle.result(timeout=10)).status == "completed"
    assert gated.begun == ["r"]


async def test_a_cancelled_caller_that_claimed_an_enqueued_run_does_not_stop_it(place: Place) -> None:
    """The caller's own runner does not work, so the call itself claims the run."""
    gated = Gated()
    async with place.runner(work=False) as runner:
        handle = await runner.enqueue(gated.flow, run_id="r")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_execute, runner, gated.flow)
            await until(lambda: gated.begun)
            tasks.cancel_scope.cancel()
        assert await handle.status() in {RunStatus.RUNNING, RunStatus.PENDING}
        gated.gate.set()
        async with place.runner(workflows=[gated.flow]):
            assert (await handle.result(timeout=10)).status == "completed"


async def test_a_cancelled_caller_of_another_process_stops_nothing(service: StartService, notes: Notes) -> None:
    first, second = await service(), await service()
    _, answer = first.post("execute", workflow="gated", run_id="r")
    await until(lambda: "gated" in notes.begun("r"))
    task, joined = second.post("execute", workflow="gated", run_id="r")
    await second.ask("enqueue", workflow="quick")  # the call before it has begun by now
    second.cancel(task)
    with pytest.raises(RemoteError, match="CancelledError"):
        await asyncio.wait_for(joined, 10)
    notes.open_gate("r")
    assert (await asyncio.wait_for(answer, 10))["status"] == "completed"
    assert not notes.read(what="cancelled", run="r")


async def test_resume_of_a_held_run_is_refused(service: StartService, notes: Notes) -> None:
    first, second = await service(), await service()
    _, answer = first.post("execute", workflow="gated", run_id="r")
    await until(lambda: "gated" in notes.begun("r"))
    for process in (first, second):
        with pytest.raises(RemoteError) as caught:
            await process.ask("resume", run_id="r")
        assert caught.value.kind == RunBusyError.__name__
    notes.open_gate("r")
    assert (await answer)["status"] == "completed"


async def test_a_result_survives_the_run_moving_between_processes(
    service: StartService, observer: WorkflowRunner, notes: Notes, query: Callable[..., Rows]
) -> None:
    first = await service()
    handle = await observer.enqueue("async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    results: list[WorkflowResult] = []

    async def wait() -> None:
        results.append(await handle.result(timeout=20))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await service()
        await first.kill()
    assert results[0].completed_steps == ["first", "hold", "last"]
    claims = query("SELECT epoch FROM core_workflow_runs WHERE run_id = ?", "r")
    assert claims == [(2,)]


async def _execute(runner: WorkflowRunner, flow: Workflow) -> None:
    await runner.execute(flow, run_id="r")
