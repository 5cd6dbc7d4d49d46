"""A background run that only waits is a row: no task, no lease, no capacity."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from spine_async import (
    RetryPolicy,
    RunHandle,
    RunStatus,
    Step,
    StepError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from tests.crash.conftest import Rows
from tests.service.conftest import StartService
from tests.service.flows import Config, Notes
from tests.service.places import Place
from tests.service.services import until

PARKS = {"park_after": 0.0}
STAYS = {"park_after": 1_000.0}
MAX_CLAIMS = 3
SEEN = 1.2
"""Seconds of a wait that a test sees parked, also if the process stands still for a moment."""


class Journey:
    """Workflows around waits, whose steps record each attempt that begins."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, bool]] = []
        self.gate = anyio.Event()

    async def step(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        path = str(context.idempotency_key).removeprefix(f"{context.run_id}/")
        self.begun.append((path, context.attempt, bool(context.metadata.get("resumed"))))
        return {"attempt": context.attempt}

    async def fail_once(self, context: WorkflowContext, config: Config) -> dict[str, object]:
        output = await self.step(context, config)
        if context.attempt == 1:
            raise StepError("not yet", category="TRANSIENT")
        return output

    async def wait_for_gate(self, context: WorkflowContext, config: Config) -> None:
        await self.step(context, config)
        await self.gate.wait()

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.begun]

    def around(self, step: Step, name: str = "around") -> Workflow:
        return Workflow(name, [Step.lambda_("before", self.step), step, Step.lambda_("after", self.step)])

    def item(self, step: Step) -> Workflow:
        return Workflow(steps=[Step.lambda_("before", self.step), step, Step.lambda_("after", self.step)])


@pytest.fixture
def journey() -> Journey:
    return Journey()


async def is_parked(handle: RunHandle) -> bool:
    record = await handle.record()
    return record.status == RunStatus.WAITING and record.due_at is not None


async def event_types(handle: RunHandle) -> list[tuple[str, str | None]]:
    """Without the progress of maps, which depends on the time that the items take."""
    events = [event async for event in handle.events()]
    return [(event.event_type, event.path) for event in events if event.event_type != "step_progress"]


@pytest.mark.parametrize("how", ["start", "enqueue"])
async def test_a_long_wait_is_parked(place: Place, journey: Journey, how: str) -> None:
    flow = journey.around(Step.wait("nap", 3_600))
    async with place.runner(workflows=[flow]) as runner:
        handle: RunHandle = await getattr(runner, how)(flow)
        await until(lambda: is_parked(handle))
        record = await handle.record()
        assert record.due_at is not None
        assert abs(record.due_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=10)
        assert (record.stop_reason, record.error, record.completed_at) == (None, None, None)
        assert [kind for kind, _ in await event_types(handle) if kind.startswith("workflow")] == ["workflow_started"]
    assert journey.paths() == ["before"]


async def test_a_parked_run_has_no_owner(
    service: StartService, observer: WorkflowRunner, query: Callable[..., Rows]
) -> None:
    await service()
    handle = await observer.enqueue("long_wait", run_id="r")
    await until(lambda: is_parked(handle))
    assert query("SELECT status, owner FROM core_workflow_runs WHERE run_id = ?", "r") == [("waiting", None)]


async def test_a_short_wait_is_not_parked(place: Place, journey: Journey) -> None:
    flow = journey.around(Step.wait("nap", 0.3))
    async with place.runner(workflows=[flow], config={"park_after": 5}) as runner:
        handle = await runner.enqueue(flow)
        await until(lambda: journey.begun)
        seen = [(await handle.record()).due_at]
        while not (await handle.record()).completed_at:
            seen.append((await handle.record()).due_at)
            await anyio.sleep(0.01)
    assert set(seen[1:]) == {None}


async def test_waking_leaves_no_trace(place: Place, journey: Journey) -> None:
    """A run that was parked and a run that stayed in memory have the same events and attempts."""
    traces = []
    for config in (PARKS, STAYS):
        journey.begun.clear()
        flow = journey.around(Step.wait("nap", SEEN))
        async with place.runner(workflows=[flow], config=config) as runner:
            handle = await runner.enqueue(flow)
            if config is PARKS:
                await until(lambda handle=handle: is_parked(handle))
            result = await handle.result(timeout=10)
            assert result.completed_steps == ["before", "nap", "after"]
            traces.append((await event_types(handle), list(journey.begun), dict(result.context.metadata)))
    assert traces[0] == traces[1]
    assert [resumed for _, _, resumed in traces[0][1]] == [False, False]


async def test_a_wait_ends_on_time_in_another_runner(place: Place, journey: Journey) -> None:
    flow = journey.around(Step.wait("nap", 0.5))
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        handle = await runner.enqueue(flow)
        await until(lambda: is_parked(handle))
        due_at = (await handle.record()).due_at
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        result = await runner.handle(handle.run_id).result(timeout=10)
    assert due_at is not None
    assert due_at <= result.completed_at + timedelta(milliseconds=5)
    assert result.completed_at < due_at + timedelta(seconds=5)
    assert journey.paths() == ["before", "after"]


async def test_a_map_whose_items_all_wait_is_parked(place: Place, journey: Journey) -> None:
    flow = journey.around(Step.map("each", items=range(5), iterator=journey.item(Step.wait("nap", SEEN))))
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        handle = await runner.enqueue(flow)
        await until(lambda: is_parked(handle))
        result = await handle.result(timeout=10)
    assert result.context.get_output("each", "succeeded") == 5
    expected = [f"each[{index}]/{step}" for index in range(5) for step in ("before", "after")]
    assert sorted(journey.paths()) == sorted(["before", "after", *expected])
    assert not any(resumed for _, _, resumed in journey.begun)


async def test_a_map_with_an_item_that_works_is_not_parked(place: Place, journey: Journey) -> None:
    async def one_works(context: WorkflowContext, config: Config) -> None:
        if context.get_param("item") == 2:
            await journey.wait_for_gate(context, config)

    item = Workflow(steps=[Step.lambda_("work", one_works), Step.wait("nap", SEEN)])
    flow = Workflow("mixed", [Step.map("each", items=range(3), iterator=item)])
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        handle = await runner.enqueue(flow)
        ended = "map_item_completed"
        await until(lambda: _count(handle, ended, 2))  # the waits of the others have ended beside it
        assert (await handle.record()).due_at is None
        journey.gate.set()
        await until(lambda: is_parked(handle))
        assert (await handle.result(timeout=10)).status == "completed"
    assert journey.paths() == ["each[2]/work"]


async def test_a_map_that_has_items_left_to_begin_is_not_parked(place: Place, journey: Journey) -> None:
    """Two of six items run at a time, so three rounds of waits are needed."""
    item = journey.item(Step.wait("nap", 0.15))
    flow = Workflow("rounds", [Step.map("each", items=range(6), iterator=item, max_concurrency=2)])
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        result = await (await runner.enqueue(flow)).result(timeout=10)
    assert result.context.get_output("each", "succeeded") == 6
    assert len(journey.begun) == 12
    assert result.duration_ms >= 450


async def test_a_retry_delay_is_parked(place: Place, journey: Journey) -> None:
    retry = RetryPolicy(max_attempts=2, backoff="constant", initial_delay=SEEN, jitter=False)
    flow = journey.around(Step.lambda_("flaky", journey.fail_once, retry=retry))
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        handle = await runner.enqueue(flow)
        await until(lambda: is_parked(handle))
        result = await handle.result(timeout=10)
        types = [kind for kind, _ in await event_types(handle)]
    assert result.context.get_output("flaky", "attempt") == 2
    assert [(path, attempt) for path, attempt, _ in journey.begun] == [
        ("before", 1),
        ("flaky", 1),
        ("flaky", 2),
        ("after", 1),
    ]
    assert types.count("step_retrying") == 1
    metric = next(metric for metric in result.step_metrics if metric.name == "flaky")
    assert metric.attempts == 2


async def test_attempts_are_used_up_across_parking(place: Place, journey: Journey) -> None:
    async def fails(context: WorkflowContext, config: Config) -> None:
        await journey.step(context, config)
        raise StepError("never", category="TRANSIENT")

    retry = RetryPolicy(max_attempts=4, backoff="constant", initial_delay=0.1, jitter=False)
    flow = Workflow("fails", [Step.lambda_("fails", fails, retry=retry)])
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        result = await (await runner.enqueue(flow)).result(timeout=10)
    assert result.status == "failed"
    assert [attempt for _, attempt, _ in journey.begun] == [1, 2, 3, 4]


async def test_a_run_that_is_awaited_by_execute_stays_in_memory(place: Place, journey: Journey) -> None:
    flow = journey.around(Step.wait("nap", 0.5))
    async with place.runner(config=PARKS) as runner, anyio.create_task_group() as tasks:
        tasks.start_soon(_execute, runner, flow)
        await until(lambda: journey.begun)
        while journey.paths() == ["before"]:
            assert (await runner.get_run("r")).due_at is None
            await anyio.sleep(0.01)


async def test_a_background_run_that_execute_joins_completes(place: Place, journey: Journey) -> None:
    flow = journey.around(Step.wait("nap", SEEN))
    async with place.runner(workflows=[flow], config=PARKS) as runner:
        handle = await runner.enqueue(flow, run_id="r")
        await until(lambda: is_parked(handle))
        with anyio.fail_after(10):
            result = await runner.execute(flow, run_id="r")
    assert result.status == "completed"
    assert result.duration_ms >= 1_190
    assert journey.paths() == ["before", "after"]


async def test_a_runner_that_does_not_work_never_parks(place: Place, journey: Journey) -> None:
    flow = journey.around(Step.wait("nap", 0.4))
    async with place.runner(work=False, config=PARKS) as runner:
        handle = await runner.start(flow)
        await until(lambda: journey.begun)
        while journey.paths() == ["before"]:
            assert (await handle.record()).due_at is None
            await anyio.sleep(0.01)
        assert (await handle.result(timeout=10)).status == "completed"


async def test_a_parked_run_takes_no_capacity(place: Place, journey: Journey) -> None:
    flow, quick = journey.around(Step.wait("nap", 3_600)), Workflow("quick", [Step.lambda_("quick", journey.step)])
    config = {"worker_concurrency": 1, **PARKS}
    async with place.runner(workflows=[flow, quick], config=config) as runner:
        waiting = [await runner.enqueue(flow) for _ in range(5)]
        handle = await runner.enqueue(quick)
        assert (await handle.result(timeout=10)).status == "completed"
        for parked in waiting:
            await until(lambda parked=parked: is_parked(parked))


async def test_a_parked_run_that_is_due_comes_before_new_runs(place: Place, journey: Journey) -> None:
    """The new runs were enqueued earlier than the parked run was due; there is capacity for one run."""
    nap = journey.around(Step.wait("nap", 2 * SEEN), name="nap")  # enough for the others to be enqueued
    blocker = Workflow("blocker", [Step.lambda_("block", journey.wait_for_gate)])
    new = Workflow("new", [Step.lambda_("new", journey.step)])
    config = {"worker_concurrency": 1, **PARKS}
    async with place.runner(workflows=[nap, blocker, new], config=config) as runner:
        parked = await runner.enqueue(nap)
        await until(lambda: is_parked(parked))
        due_at = (await parked.record()).due_at
        assert due_at is not None
        await runner.enqueue(blocker)
        await until(lambda: "block" in journey.paths())
        handles = [await runner.enqueue(new) for _ in range(3)]
        assert datetime.now(UTC) < due_at
        await until(lambda: datetime.now(UTC) > due_at + timedelta(milliseconds=200))
        journey.gate.set()
        for handle in (parked, *handles):
            await handle.result(timeout=10)
    assert journey.paths() == ["before", "block", "after", "new", "new", "new"]


async def test_many_wakings_are_not_poison(place: Place, journey: Journey) -> None:
    """A loop of twelve waits; a run may be taken over once without progress."""

    def again(context: WorkflowContext) -> bool:
        return len(journey.begun) < 12

    steps = [Step.lambda_("turn", journey.step), Step.wait("nap", 0.03), Step.choice("again", again, "turn")]
    flow = Workflow("loop", steps)
    async with place.runner(workflows=[flow], config={"max_claims": 1, **PARKS}) as runner:
        result = await (await runner.enqueue(flow)).result(timeout=20)
    assert result.status == "completed"
    assert len(journey.begun) == 12


async def test_the_limit_of_the_workflow_counts_from_the_first_start(place: Place, journey: Journey) -> None:
    flow = Workflow("naps", [Step.wait(f"nap{number}", 0.3) for number in range(30)])
    async with place.runner(workflows=[flow], config={"workflow_timeout": 0.8, **PARKS}) as runner:
        result = await (await runner.enqueue(flow)).result(timeout=10)
    assert (result.status, result.error_category) == ("failed", "TIMEOUT")
    assert result.duration_ms < 5_000


@pytest.mark.slow
@pytest.mark.sample(every=2)
@pytest.mark.parametrize("park_after", [0.0, 1_000.0], ids=["parked", "held"])
async def test_a_run_that_is_killed_again_and_again_while_it_waits_completes(
    service: StartService, observer: WorkflowRunner, notes: Notes, query: Callable[..., Rows], park_after: float
) -> None:
    config = {"park_after": park_after, "max_claims": MAX_CLAIMS}
    process = await service(config=config)
    handle = await observer.enqueue("short_wait", run_id="r")
    await until(lambda: _count(handle, "step_completed", 1))

    def epoch() -> int:
        (row,) = query("SELECT epoch FROM core_workflow_runs WHERE run_id = ?", "r")
        return row[0]

    def waits_again(before: int) -> bool:
        (row,) = query("SELECT epoch, status FROM core_workflow_runs WHERE run_id = ?", "r")
        return row[1] not in {"waiting", "running"} or (row[0] > before and row[1] == "waiting")

    await until(lambda: waits_again(-1))
    kills = 0
    while kills < MAX_CLAIMS + 2 and notes.begun("r") == ["first"]:  # until the wait has ended
        before = epoch()
        await process.kill()
        kills += 1
        process = await service(config=config)
        if park_after:
            await until(lambda before=before: waits_again(before))
    assert kills > config["max_claims"]
    result = await handle.result(timeout=20)
    assert (result.status, result.error) == ("completed", None)
    assert list(dict.fromkeys(notes.begun("r"))) == ["first", "last"]
    assert notes.begun("r").count("first") == 1


async def _count(handle: RunHandle, kind: str, number: int) -> bool:
    return [seen for seen, _ in await event_types(handle)].count(kind) >= number


async def _execute(runner: WorkflowRunner, flow: Workflow) -> Any:
    return await runner.execute(flow, run_id="r")
