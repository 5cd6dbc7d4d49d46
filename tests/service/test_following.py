"""Followers get every event once and in order: in the owner's process and elsewhere, whatever becomes of the owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from spine_async import (
    Event,
    RunHandle,
    RunNotFoundError,
    Step,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore
from tests.service.conftest import StartService
from tests.service.flows import Notes
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]


END = object()


class Gate:
    """A workflow whose step emits what it is told."""

    def __init__(self) -> None:
        self._values = asyncio.Queue[object]()
        self.send = self._values.put_nowait
        self.flow = Workflow("gate", [Step.lambda_("first", self._first), Step.lambda_("gate", self._gate)])

    async def _first(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        return {"a": 1}

    async def _gate(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        while (value := await self._values.get()) is not END:
            context.emit("token", value)
        return {"b": 2}


async def collect(events: AsyncIterator[Event], into: list[Event]) -> list[Event]:
    async for event in events:
        into.append(event)  # noqa: PERF401 (a test looks at it meanwhile)
    return into


def check_whole(events: list[Event], after: int = 0) -> None:
    """Nothing is missing and nothing is there twice."""
    assert [event.seq for event in events] == list(range(after + 1, after + 1 + len(events)))
    assert events[-1].event_type == "workflow_completed"


def tokens(events: list[Event]) -> list[Any]:
    return [event.metadata["data"] for event in events if event.event_type == "token"]


@pytest.mark.parametrize("where", ["same runner", "another runner"])
async def test_events_arrive_while_the_run_is_executed_and_following_ends_with_the_run(
    place: Place, where: str
) -> None:
    gate = Gate()
    async with place.runner() as owner, place.runner(work=False) as other:
        handle = await owner.start(gate.flow, run_id="r")
        reader = owner if where == "same runner" else other
        seen: list[Event] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect, reader.events("r", follow=True), seen)
            for number in range(3):
                gate.send(number)
                await until(lambda number=number: tokens(seen) == list(range(number + 1)))
            assert (await handle.status()).value == "running"
            gate.send(END)
        check_whole(seen)
        assert seen == [event async for event in owner.events("r")]
        assert [event.event_type for event in seen[:4]] == [
            "workflow_started",
            "step_started",
            "step_completed",
            "step_started",
        ]


async def test_following_a_run_that_has_ended_ends_with_its_last_event(place: Place) -> None:
    gate = Gate()
    gate.send(END)
    async with place.runner(work=False) as runner:
        await runner.execute(gate.flow, run_id="r")
        whole = [event async for event in runner.handle("r").events(follow=True)]
        check_whole(whole)
        assert [event async for event in runner.events("r", after=3, follow=True)] == whole[3:]
        assert [event async for event in runner.events("r", 1_000, follow=True)] == []


async def test_a_reader_that_reconnects_with_its_last_number_sees_every_event_once(place: Place) -> None:
    gate = Gate()
    async with place.runner() as owner, place.runner(work=False) as other:
        await owner.start(gate.flow, run_id="r")
        for number in range(40):
            gate.send(number)
        gate.send(END)
        seen: list[Event] = []
        while not seen or seen[-1].event_type != "workflow_completed":
            reader = owner if len(seen) % 2 else other
            async with aclosing(reader.events("r", seen[-1].seq if seen else 0, follow=True)) as events:
                async for event in events:
                    seen.append(event)
                    if event.seq % 7 == 0:
                        break
        check_whole(seen)
        assert tokens(seen) == list(range(40))


async def test_a_slow_reader_misses_nothing_and_slows_nobody(place: Place) -> None:
    gate = Gate()
    async with place.runner() as owner:
        handle = await owner.start(gate.flow, run_id="r")
        async with aclosing(owner.events("r", follow=True)) as slow:
            seen = [await anext(slow)]
            fast: list[Event] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(collect, owner.events("r", follow=True), fast)
                for number in range(1500):  # more than is kept for followers
                    if number % 300 == 299:
                        await until(lambda number=number: len(tokens(fast)) >= number - 300)
                    gate.send(number)
                gate.send(END)
            await handle.result()
            seen += [event async for event in slow]
        check_whole(fast)
        assert seen == fast


async def test_hundreds_of_followers_read_each_event_once_from_the_store() -> None:
    store = FaultInjectingStore(MemoryRunStore())
    gate = Gate()
    async with WorkflowRunner(store=store) as runner:
        await runner.start(gate.flow, run_id="r")
        seen: list[list[Event]] = [[] for _ in range(200)]
        async with anyio.create_task_group() as tasks:
            for each in seen:
                tasks.start_soon(collect, runner.events("r", follow=True), each)
            await until(lambda: all(len(each) == 4 for each in seen))
            reads = store.calls["events"]
            for number in range(20):
                gate.send(number)
                await until(lambda number=number: all(len(each) == 5 + number for each in seen))
            assert store.calls["events"] == reads  # emitted events come from the commit itself
            gate.send(END)
        assert store.calls["events"] - reads <= 5
    for each in seen:
        check_whole(each)
        assert tokens(each) == list(range(20))


async def test_one_call_of_the_store_serves_all_runs_that_are_executed_elsewhere() -> None:
    memory = MemoryRunStore()
    store = FaultInjectingStore(memory)
    gates = [Gate() for _ in range(20)]
    async with WorkflowRunner(store=memory) as owner, WorkflowRunner(store=store, work=False) as reader:
        seen: list[list[Event]] = [[] for _ in gates]
        for number, gate in enumerate(gates):
            await owner.start(gate.flow, run_id=f"r{number}")
        async with anyio.create_task_group() as tasks:
            for number, each in enumerate(seen):
                tasks.start_soon(collect, reader.events(f"r{number}", follow=True), each)
            await until(lambda: all(len(each) == 4 for each in seen))
            looks, began = store.calls["states"], anyio.current_time()
            await anyio.sleep(0.3)
            assert store.calls["states"] - looks <= (anyio.current_time() - began) / 0.01 + 1
            for gate in gates:
                gate.send(END)
    for each in seen:
        check_whole(each)
    assert store.calls["states"] > 0


async def test_without_followers_the_store_is_not_asked() -> None:
    store = FaultInjectingStore(MemoryRunStore())
    gate = Gate()
    async with WorkflowRunner(store=store) as runner:
        handle = await runner.start(gate.flow, run_id="r")
        async with aclosing(runner.events("r", follow=True)) as events:
            await anext(events)
        asked = store.calls["states"], store.calls["events"]
        for number in range(5):
            gate.send(number)
            await anyio.sleep(0.02)
        assert (store.calls["states"], store.calls["events"]) == asked
        assert runner._runtime.journal.on_commit is None
        gate.send(END)
        await handle.result()


async def test_a_run_that_waits_in_the_queue_is_followed_from_its_first_event(place: Place) -> None:
    gate = Gate()
    gate.send(END)
    async with place.runner(work=False) as reader:
        handle = await reader.enqueue(gate.flow, run_id="r")
        seen: list[Event] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect, handle.events(follow=True), seen)
            await anyio.sleep(0.05)
            assert seen == []
            async with place.runner(workflows=[gate.flow]):
                await until(lambda: seen and seen[-1].event_type == "workflow_completed")
    check_whole(seen)


async def test_a_run_that_does_not_exist_and_one_that_is_deleted(place: Place) -> None:
    gate = Gate()
    async with place.runner(work=False) as reader:
        with pytest.raises(RunNotFoundError):
            await collect(reader.events("nobody", follow=True), [])
        handle = await reader.enqueue(gate.flow, run_id="r")

        async def follow() -> None:
            with pytest.raises(RunNotFoundError):
                await collect(handle.events(follow=True), [])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.sleep(0.02)
            await reader.delete_run("r", force=True)


@pytest.mark.parametrize("ends", [False, True], ids=["has not begun", "has ended"])
async def test_a_run_that_is_deleted_and_created_anew_between_two_looks(store: FaultInjectingStore, ends: bool) -> None:
    gate, config = Gate(), WorkflowRunnerConfig(drain_timeout=0.0, trace_enabled=False)
    seen, again = list[Event](), list[Event]()
    async with WorkflowRunner(store=store, config=config, work=False, workflows=[gate.flow]) as follower:
        async with WorkflowRunner(store=store, config=config, workflows=[gate.flow]) as owner:
            handle = await owner.start(gate.flow, run_id="r")
            for number in range(5):
                gate.send(number)
            await until(lambda: has_events(handle, 8))
        reading = asyncio.create_task(collect(follower.events("r", follow=True), seen))
        await until(lambda: len(seen) >= 8)
        hang = store.hang("states", call=store.calls["states"] + 1)
        await hang.reached.wait()
        await follower.delete_run("r", force=True)
        late = None
        if ends:
            await follower.execute(Workflow("quick", gate.flow.steps[:1]), run_id="r")
        else:
            await follower.enqueue(gate.flow, run_id="r")
            late = asyncio.create_task(collect(follower.events("r", follow=True), again))
        hang.release.set()
        with anyio.fail_after(10), pytest.raises(RunNotFoundError):
            await reading
        if late is not None:
            async with WorkflowRunner(store=store, config=config, workflows=[gate.flow]):
                gate.send(END)
                with anyio.fail_after(10):
                    check_whole(await late)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))


async def has_events(handle: RunHandle, number: int) -> bool:
    return (await handle.record()).last_seq >= number


async def test_a_run_without_events_ends_its_followers(place: Place) -> None:
    gate = Gate()
    async with place.runner(config={"emit_events": False}) as owner:
        await owner.start(gate.flow, run_id="r")
        seen: list[Event] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect, owner.events("r", follow=True), seen)
            await anyio.sleep(0.02)
            gate.send(END)
        assert seen == []


async def test_a_resumed_run_is_followed_to_its_second_end(place: Place) -> None:
    fails = True

    async def step(context: WorkflowContext, config: Config) -> None:
        if fails:
            raise ValueError("no")

    flow = Workflow("w", [Step.lambda_("step", step)])
    async with place.runner(work=False) as runner:
        await runner.execute(flow, run_id="r")
        first = [event async for event in runner.events("r", follow=True)]
        assert first[-1].event_type == "workflow_failed"
        fails = False
        await runner.resume("r")
        rest = [event async for event in runner.events("r", first[-1].seq, follow=True)]
    assert [event.event_type for event in rest] == [
        "workflow_resumed",
        "step_started",
        "step_completed",
        "workflow_completed",
    ]


@pytest.mark.parametrize("ending", ["kill", "terminate"])
async def test_a_follower_sees_the_whole_run_across_the_death_or_the_deploy_of_its_owner(
    service: StartService, observer: WorkflowRunner, notes: Notes, ending: str
) -> None:
    first = await service()
    handle: RunHandle = await observer.enqueue("streams", run_id="r")
    seen: list[Event] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect, handle.events(follow=True), seen)
        await until(lambda: len(tokens(seen)) >= 3)
        second = await service()
        await getattr(first, ending)()
        await until(lambda: any(event.metadata.get("execution") == 2 for event in seen))
        notes.open_gate("r")
    check_whole(seen)
    assert seen == [event async for event in observer.events("r")]
    executions: list[Any] = [event.metadata["execution"] for event in seen if event.event_type == "token"]
    assert executions == sorted(executions)
    assert set(executions) == {1, 2}
    starts = [event for event in seen if (event.event_type, event.path) == ("step_started", "stream")]
    assert len(starts) == 2  # the second one tells readers to discard what the first one emitted
    assert {note["pid"] for note in notes.read(what="began", path="stream")} == {first.pid, second.pid}
