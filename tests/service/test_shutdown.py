"""Leaving a runner costs no more than a crash."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.flows import Config, Notes
from tests.service.places import Place
from tests.service.services import Service, until

SOON = 10.0
"""Seconds; far below the waits of the runs, and below `drain_timeout`."""

HELD = ("async", "sync", "pipeline", "map", "nested", "raises")  # kinds whose first execution does not end
WAITING = ("wait", "waiting_map", "signal", "retry")
KINDS = HELD + WAITING

CONTINUED = {  # attempts that begin after the end of the first owner
    "async": ["hold", "last"],
    "sync": ["hold", "last"],
    "pipeline": ["hold", "last"],
    "map": ["each[1]/item", "each[3]/item", "last"],
    "nested": ["hold", "last"],
    "raises": ["hold", "last"],
    "wait": ["last"],
    "waiting_map": ["each[0]/last", "each[1]/last", "each[2]/last", "last"],
    "signal": ["last"],
    "retry": ["flaky", "last"],
}


class Endings:
    """Brings runs of every kind of step to their middle, ends their owner, and reads what becomes of them."""

    def __init__(self, start: StartService, observer: WorkflowRunner, notes: Notes, park_after: float) -> None:
        self._start = start
        self._observer = observer
        self._notes = notes
        self._config = {"park_after": park_after, "cancel_grace": 0.3}

    async def after(self, end: Callable[[Service], Any], prefix: str) -> dict[str, Any]:
        first = await self._start(config=self._config)
        runs = {kind: f"{prefix}-{kind}" for kind in KINDS}
        for kind in HELD:
            await self._observer.enqueue(kind, run_id=runs[kind], params={"run": runs[kind]})
        await self._until_held(runs)
        second = await self._start(config=self._config)
        for kind in WAITING:  # their delays are short, so nothing slow follows before the end
            await first.ask("start", workflow=kind, run_id=runs[kind], params={"run": runs[kind]})
        await self._until_waiting(runs)
        seen = {kind: len(self._notes.begun(run)) for kind, run in runs.items()}
        await end(first)
        await self._observer.signal(runs["signal"], "approval", {"yes": True})
        outcomes = {kind: await self._outcome(run) for kind, run in runs.items()}
        for kind, run in runs.items():
            outcomes[kind]["continued"] = sorted(self._notes.begun(run)[seen[kind] :])
        await second.terminate()
        return outcomes

    async def _until_held(self, runs: dict[str, str]) -> None:
        for kind in ("async", "sync", "pipeline", "raises"):
            await until(lambda run=runs[kind]: "hold" in self._notes.begun(run))
        await until(lambda: self._notes.begun(f"{runs['nested']}-child") == ["hold"])
        await until(lambda: self._events(runs["map"], "map_item_completed", 2))
        await until(lambda: len(self._notes.begun(runs["map"])) == 5)

    async def _until_waiting(self, runs: dict[str, str]) -> None:
        await until(lambda: self._events(runs["waiting_map"], "step_started", 8))  # first, each, three times two
        await until(lambda: self._events(runs["retry"], "step_retrying", 1))
        for kind in ("wait", "signal"):
            await until(lambda run=runs[kind]: self._events(run, "step_started", 2))

    async def _events(self, run: str, kind: str, number: int) -> bool:
        return len([event async for event in self._observer.events(run) if event.event_type == kind]) >= number

    async def _outcome(self, run: str) -> dict[str, Any]:
        result = await self._observer.handle(run).result(timeout=20)
        record = await self._observer.get_run(run)
        events = [event async for event in self._observer.events(run)]
        return {
            "status": (result.status, record.status),
            "reason": (result.stop_reason, record.stop_reason),
            "error": (result.error, record.error),
            "completed": result.completed_steps,
            "outputs": _without_ids(result.context.to_dict()["outputs"]),
            "ended": sorted(
                f"{event.event_type} {event.path}"
                for event in events
                if event.event_type not in {"step_started", "step_progress", "workflow_started", "workflow_resumed"}
            ),
        }


_OWN = {"run", "given", "nap", "received_at"}  # outputs that differ between runs


def _without_ids(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {name: _without_ids(value) for name, value in outputs.items() if name not in _OWN}
    if isinstance(outputs, list):
        return [_without_ids(value) for value in outputs]
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("park_after", [0.0, 100.0], ids=["parked", "held"])
async def test_sigterm_leaves_to_others_what_sigkill_leaves(
    service: StartService, observer: WorkflowRunner, notes: Notes, park_after: float
) -> None:
    endings = Endings(service, observer, notes, park_after)
    killed = await endings.after(lambda first: first.kill(), "kill")
    terminated = await endings.after(lambda first: first.terminate(), "term")
    assert {kind: outcome["status"][0].value for kind, outcome in killed.items()} == dict.fromkeys(KINDS, "completed")
    assert {kind: outcome["continued"] for kind, outcome in killed.items()} == CONTINUED
    assert terminated == killed


async def test_a_released_run_is_pending_due_now_and_without_owner(
    service: StartService, observer: WorkflowRunner, notes: Notes, query: Callable[..., Rows]
) -> None:
    first = await service()
    handle = await observer.enqueue("async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    await first.terminate()
    record = await handle.record()
    assert (record.status, record.stop_reason, record.error) == (RunStatus.PENDING, None, None)
    assert record.due_at is not None
    assert abs(record.due_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert query("SELECT owner FROM core_workflow_runs WHERE run_id = ?", "r") == [(None,)]
    types = [event.event_type async for event in handle.events()]
    assert "workflow_stopped" not in types
    assert "step_failed" not in types


async def test_a_step_with_a_thread_left_behind_keeps_its_lease_until_the_process_is_gone(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    first = await service()
    handle = await observer.enqueue("sync", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    second = await service()
    await first.terminate()
    assert (await handle.result(timeout=15)).status == "completed"
    assert [note["pid"] for note in notes.read(what="began", path="hold")] == [first.pid, second.pid]


async def test_a_caller_in_execute_gets_stopped_and_the_stored_run_is_pending(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    first = await service()
    _, answer = first.post("execute", workflow="async", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "hold"])
    await first.terminate()
    result = await answer
    assert (result["status"], result["stop_reason"]) == ("stopped", "shutdown")
    assert (await observer.get_run("r")).status == RunStatus.PENDING
    await service()
    assert (await observer.handle("r").result(timeout=15)).completed_steps == ["first", "hold", "last"]


async def test_a_step_that_ends_within_the_drain_timeout_is_not_repeated(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    first = await service(config={"drain_timeout": 10})
    handle = await observer.enqueue("gated", run_id="r")
    await until(lambda: notes.begun("r") == ["first", "gated"])
    leaving = anyio.Event()

    async def leave() -> None:
        leaving.set()
        await first.terminate()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await leaving.wait()
        notes.open_gate("r")
    if (await handle.status()) != RunStatus.COMPLETED:  # the step may have ended before the signal arrived
        await service()
        await handle.result(timeout=15)
    assert notes.begun("r") == ["first", "gated", "last"]


async def test_leaving_a_runner_does_not_wait_for_waiting_runs(place: Place) -> None:
    flow = waiting_flow(seconds=3_600)
    config = {"park_after": 10_000, "drain_timeout": 30}
    async with place.runner(config=config, workflows=[flow]) as runner:
        handles = [await runner.start(flow) for _ in range(30)]
        for handle in handles:
            await until(lambda handle=handle: waits_in(handle))
        left_at = time.perf_counter()
    assert time.perf_counter() - left_at < SOON
    async with place.runner(work=False) as runner:
        records = [await runner.get_run(handle.run_id) for handle in handles]
    assert {record.stop_reason for record in records} == {None}
    assert {record.status for record in records} <= {RunStatus.PENDING, RunStatus.WAITING}


async def test_a_waiting_run_does_not_wait_longer_because_of_a_deploy(place: Place) -> None:
    nap = timedelta(seconds=2.5)
    flow = waiting_flow(seconds=nap.total_seconds())
    async with place.runner(config={"park_after": 10_000}, workflows=[flow]) as runner:
        handle = await runner.start(flow)
        await until(lambda: waits_in(handle))
        waits_at = datetime.now(UTC)
    due_at = (await place.runner(work=False).get_run(handle.run_id)).due_at
    assert due_at is not None
    assert due_at <= waits_at + nap + timedelta(milliseconds=5)
    async with place.runner(config={"park_after": 10_000}, workflows=[flow]) as runner:
        result = await runner.handle(handle.run_id).result(timeout=10)
    assert result.completed_steps == ["nap"]
    assert result.completed_at < due_at + nap, "a wait begun anew would end then"


async def waits_in(handle: Any) -> bool:
    return any([event.event_type == "step_started" async for event in handle.events()])


async def test_a_caller_of_a_waiting_run_gets_stopped_at_once(place: Place) -> None:
    flow = waiting_flow(seconds=3_600)
    results: list[tuple[str, str | None]] = []

    async def call() -> None:
        result = await runner.execute(flow, run_id="r")
        results.append((result.status.value, result.stop_reason))

    async with anyio.create_task_group() as tasks, place.runner(config={"drain_timeout": 30}) as runner:
        tasks.start_soon(call)
        await until(lambda: is_stored(place, "r"))
        left_at = time.perf_counter()
    assert time.perf_counter() - left_at < SOON
    assert results == [("stopped", "shutdown")]
    record = await place.runner(work=False).get_run("r")
    assert record.status in {RunStatus.PENDING, RunStatus.WAITING}
    assert record.stop_reason is None


async def is_stored(place: Place, run_id: str) -> bool:
    return await is_stored_in(place.runner(work=False), run_id)


async def is_stored_in(runner: WorkflowRunner, run_id: str) -> bool:
    return run_id in [record.run_id for record in await runner.list_runs()]


async def test_a_waiter_for_a_result_survives_that_its_own_runner_is_left(place: Place) -> None:
    begun = anyio.Event()

    async def once(context: WorkflowContext, config: Config) -> None:
        if not begun.is_set():
            begun.set()
            await anyio.sleep_forever()

    flow = Workflow("once", [Step.lambda_("once", once)])
    statuses: list[str] = []

    async def wait() -> None:
        statuses.append((await handle.result(timeout=10)).status.value)

    async with anyio.create_task_group() as tasks:
        async with place.runner(config={"drain_timeout": 0}) as runner:
            handle = await runner.start(flow)
            tasks.start_soon(wait)
            await begun.wait()
        async with place.runner(workflows=[flow]) as other:
            assert (await other.handle(handle.run_id).result(timeout=10)).status == "completed"
    assert statuses == ["completed"]


async def test_a_waiter_for_a_result_survives_that_no_further_step_begins(place: Place) -> None:
    """The running step ends within `drain_timeout`, so nothing is cancelled, and the next step does not begin."""
    begun, gate = anyio.Event(), anyio.Event()

    async def gated(context: WorkflowContext, config: Config) -> None:
        begun.set()
        await gate.wait()

    flow = Workflow("two", [Step.lambda_("gated", gated), Step.lambda_("last", gated)])
    statuses: list[str] = []

    async def wait() -> None:
        statuses.append((await handle.result(timeout=10)).status.value)

    async with anyio.create_task_group() as tasks:
        async with place.runner(config={"drain_timeout": 10}) as runner:
            handle = await runner.start(flow)
            tasks.start_soon(wait)
            await begun.wait()
            tasks.start_soon(_open_when_draining, runner, gate)
        assert await handle.status() == RunStatus.PENDING
        async with place.runner(workflows=[flow]) as other:
            assert (await other.handle(handle.run_id).result(timeout=10)).completed_steps == ["gated", "last"]
    assert statuses == ["completed"]


async def _open_when_draining(runner: WorkflowRunner, gate: anyio.Event) -> None:
    await until(lambda: runner._runtime.is_draining)
    gate.set()


async def test_six_deploys_during_one_step_do_not_make_poison(place: Place) -> None:
    begun: list[int] = []
    is_last = anyio.Event()

    async def long(context: WorkflowContext, config: Config) -> None:
        begun.append(context.attempt)
        await is_last.wait()

    flow = Workflow("long", [Step.lambda_("long", long)])
    config = {"drain_timeout": 0, "max_claims": 2}
    async with place.runner(work=False) as producer:
        handle = await producer.enqueue(flow)
        for deploys in range(1, 7):
            async with place.runner(config=config, workflows=[flow]):
                await until(lambda deploys=deploys: len(begun) == deploys)
            assert await handle.status() == RunStatus.PENDING
        is_last.set()
        async with place.runner(config=config, workflows=[flow]):
            assert (await handle.result(timeout=10)).status == "completed"
    assert len(begun) == 7


@pytest.mark.slow
async def test_a_step_that_ends_its_process_again_and_again_is_poison(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    handle = await observer.enqueue("exits", run_id="r")
    deaths = 0
    while True:
        process = await service(config={"max_claims": 2})
        ended = await until(lambda process=process: process.is_gone or _has_failed(handle))
        if await handle.status() == RunStatus.FAILED:
            break
        assert ended is True
        assert await process.died() == 1
        deaths += 1
        assert deaths < 6, "the run is executed again and again"
    assert 2 <= deaths <= 4
    assert notes.begun("r") == ["first"] + ["exit"] * deaths
    quick = await observer.enqueue("quick")
    assert (await quick.result(timeout=10)).status == "completed"


async def _has_failed(handle: Any) -> bool:
    return await handle.status() == RunStatus.FAILED


async def test_an_exception_of_a_cancelled_step_is_not_an_outcome(place: Place) -> None:
    begun = anyio.Event()

    async def raises(context: WorkflowContext, config: Config) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("raised while it is cancelled")

    flow = Workflow("raises", [Step.lambda_("raises", raises)])
    async with place.runner(config={"drain_timeout": 0}, workflows=[flow]) as runner:
        handle = await runner.start(flow)
        await begun.wait()
    async with place.runner(work=False) as reader:
        record = await reader.get_run(handle.run_id)
    assert (record.status, record.error, record.stop_reason) == (RunStatus.PENDING, None, None)


async def test_a_cancelled_caller_at_shutdown_leaves_the_run_to_others(place: Place) -> None:
    """The runner is left first; the callers are cancelled afterwards, as uvicorn does not do, and others do."""
    begun = anyio.Event()

    async def long(context: WorkflowContext, config: Config) -> None:
        begun.set()
        await anyio.sleep_forever()

    flow = Workflow("long", [Step.lambda_("long", long)])
    results: list[tuple[str, str | None]] = []
    async with anyio.create_task_group() as tasks, place.runner(config={"drain_timeout": 0}) as runner:

        async def call() -> None:
            result = await runner.execute(flow, run_id="r")
            results.append((result.status.value, result.stop_reason))

        tasks.start_soon(call)
        await begun.wait()
    assert results == [("stopped", "shutdown")]
    async with place.runner(work=False) as reader:
        assert (await reader.get_run("r")).status == RunStatus.PENDING


async def test_a_step_that_awaits_a_run_which_the_shutdown_gives_up_is_continued(place: Place) -> None:
    """The awaited run only waits, so it is given up at once, while the step that awaits it may still continue."""
    child = Workflow("child", [Step.wait("nap", 0.5)])
    begun: list[str] = []

    async def await_child(context: WorkflowContext, config: Config) -> None:
        begun.append(context.run_id)
        (await runner.execute(child, run_id="child")).raise_for_status()

    parent = Workflow("parent", [Step.lambda_("await", await_child)])
    config = {"drain_timeout": 0.2}
    async with place.runner(config=config, workflows=[parent, child]) as runner:
        handle = await runner.start(parent)
        await until(lambda: waits_in_stored(runner, "child"))
    async with place.runner(work=False) as reader:
        assert await reader.handle(handle.run_id).status() == RunStatus.PENDING
    async with place.runner(config=config, workflows=[parent, child]) as runner:
        assert (await runner.handle(handle.run_id).result(timeout=10)).status == "completed"
    assert len(begun) == 2


async def waits_in_stored(runner: WorkflowRunner, run_id: str) -> bool:
    return await is_stored_in(runner, run_id) and await waits_in(runner.handle(run_id))


async def test_runs_that_have_not_begun_stay_pending(place: Place) -> None:
    async def long(context: WorkflowContext, config: Config) -> None:
        begun.set()
        await anyio.sleep_forever()

    begun = anyio.Event()
    flow = Workflow("long", [Step.lambda_("long", long)])
    config = {"worker_concurrency": 1, "drain_timeout": 0}
    async with place.runner(config=config, workflows=[flow]) as runner:
        handles = [await runner.enqueue(flow) for _ in range(3)]
        await begun.wait()
    async with place.runner(work=False) as reader:
        assert [await reader.handle(handle.run_id).status() for handle in handles] == [RunStatus.PENDING] * 3


def waiting_flow(*, seconds: float) -> Workflow:
    return Workflow("waiting", [Step.wait("nap", seconds)])
