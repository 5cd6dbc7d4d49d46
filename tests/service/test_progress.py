"""Progress: the latest value is stored now and then, and the next attempt reads it, in another process too."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import pytest

from spine_async import (
    AttemptEndedError,
    DefinitionError,
    Event,
    LocalDispatcher,
    Progress,
    RetryPolicy,
    Step,
    StepError,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
)
from spine_async.storage import MemoryRunStore
from spine_async.testing import VirtualClock, run_virtual
from tests.service.conftest import StartService
from tests.service.flows import Notes
from tests.service.places import Place
from tests.service.services import until

pytestmark = pytest.mark.anyio

Config = Mapping[str, object]
AGAIN = RetryPolicy(max_attempts=3, backoff="constant", initial_delay=0.001, jitter=False)


async def reports(runner: WorkflowRunner, run_id: str) -> list[Event]:
    return [event async for event in runner.events(run_id) if event.event_type == "step_progress"]


async def test_the_latest_value_is_stored_while_the_step_is_running_and_at_its_end(place: Place) -> None:
    go_on = anyio.Event()

    async def load(context: WorkflowContext, config: Config) -> None:
        for done in range(1000):
            context.progress(done, 2000, "loading")
        await go_on.wait()
        context.progress(2000, 2000)

    async with place.runner() as runner:
        handle = await runner.start(Workflow("w", [Step.lambda_("load", load)]), run_id="r")
        (first,) = await until(lambda: reports(runner, "r"))
        assert first.metadata == {"execution": 1, "attempt": 1, "done": 999, "total": 2000, "message": "loading"}
        assert (first.step_name, first.path) == ("load", "load")
        go_on.set()
        await handle.result()
        events = [event async for event in runner.events("r")]
    assert [(event.event_type, event.metadata.get("done")) for event in events[1:]] == [
        ("step_started", None),
        ("step_progress", 999),
        ("step_progress", 2000),
        ("step_completed", None),
        ("workflow_completed", None),
    ]


async def test_it_is_stored_at_most_five_times_a_second() -> None:
    async def load(context: WorkflowContext, config: Config) -> None:
        began = anyio.current_time()
        while anyio.current_time() < began + 0.9:
            context.progress(anyio.current_time() - began)
            await anyio.sleep(0.001)

    async with Place(None).runner(config={"lease_ttl": 0.6}) as runner:  # so that the watcher looks often
        await runner.execute(Workflow("w", [Step.lambda_("load", load)]), run_id="r")
        events = await reports(runner, "r")
    assert 2 <= len(events) <= 6
    gaps = [later.timestamp - earlier.timestamp for earlier, later in itertools.pairwise(events[:-1])]
    assert all(gap.total_seconds() > 0.15 for gap in gaps)


@pytest.mark.parametrize("is_thread", [False, True])
async def test_the_next_attempt_reads_the_last_progress_of_the_attempt_before(place: Place, is_thread: bool) -> None:
    seen: list[Progress | None] = []

    def work(context: WorkflowContext) -> None:
        seen.append(context.last_progress)
        start = int(context.last_progress.done) if context.last_progress is not None else 0
        for done in range(start + 1, start + 11):
            context.progress(done, 30)
        if context.attempt < 3:
            raise StepError("again", category="TRANSIENT")

    async def on_loop(context: WorkflowContext, config: Config) -> None:
        work(context)

    def on_thread(context: WorkflowContext, config: Config) -> None:
        work(context)

    step = Step.lambda_("load", on_thread if is_thread else on_loop, retry=AGAIN)
    async with place.runner(work=False) as runner:
        (await runner.execute(Workflow("w", [step]), run_id="r")).raise_for_status()
        stored = [(event.metadata["attempt"], event.metadata["done"]) for event in await reports(runner, "r")]
    assert seen == [None, Progress(10, 30), Progress(20, 30)]
    assert stored == [(1, 10), (2, 20), (3, 30)]


async def test_a_resume_reads_the_last_progress_of_the_execution_before(place: Place) -> None:
    seen: list[Progress | None] = []

    async def load(context: WorkflowContext, config: Config) -> None:
        seen.append(context.last_progress)
        context.progress(len(seen), message="über\0mäßig")
        if len(seen) < 3:
            raise StepError("no")

    flow = Workflow("w", [Step.lambda_("load", load), Step.lambda_("next", load)])
    async with place.runner(work=False) as runner:
        await runner.execute(flow, run_id="r")
    async with place.runner(work=False) as runner:
        await runner.resume("r", workflow=flow)
        result = await runner.resume("r")
    result.raise_for_status()
    assert [progress and progress.done for progress in seen] == [None, 1, 2, None]
    assert seen[1] == Progress(1, message="über\\x00mäßig")


async def test_each_visit_and_each_item_has_its_own(place: Place) -> None:
    seen: dict[str, float | None] = {}
    attempts = Counter[str]()

    async def load(context: WorkflowContext, config: Config) -> None:
        path = str(context.idempotency_key).removeprefix("r/")
        attempts[path] += 1
        seen[f"{path}:{attempts[path]}"] = context.last_progress.done if context.last_progress else None
        context.progress(context.params.get("item", 50))
        if attempts[path] == 1 and context.params.get("item") != 1:
            raise StepError("no")

    inner = Workflow(steps=[Step.lambda_("load", load), Step.lambda_("more", load)])
    flow = Workflow("w", [Step.map("each", items=[0, 1], iterator=inner, max_concurrency=1)])
    async with place.runner(work=False) as runner:
        result = await runner.execute(flow, run_id="r")
        while result.status != "completed":
            result = await runner.resume("r")
    assert seen == {
        "each[0]/load:1": None,
        "each[0]/load:2": 0,
        "each[0]/more:1": None,
        "each[0]/more:2": 0,
        "each[1]/load:1": None,
        "each[1]/more:1": None,
    }


async def test_a_map_reports_how_many_items_have_ended(place: Place) -> None:
    gates = [anyio.Event() for _ in range(3)]

    async def load(context: WorkflowContext, config: Config) -> None:
        await gates[context.params["item"]].wait()
        if context.params["item"] == 1:
            raise StepError("no")

    flow = Workflow("w", [Step.map("each", items=range(3), iterator=load, tolerated_failures=1)])
    async with place.runner() as runner:
        handle = await runner.start(flow, run_id="r")
        for number in range(2):
            gates[number].set()
            await until(lambda number=number: _count(runner, number + 1))
        gates[2].set()
        await handle.result()
        shown = [(event.path, event.metadata["done"], event.metadata["total"]) for event in await reports(runner, "r")]
    # The last report is stored too if the step does not end within the pause after the one before.
    assert shown in ([("each", 1, 3), ("each", 2, 3)], [("each", 1, 3), ("each", 2, 3), ("each", 3, 3)])


async def _count(runner: WorkflowRunner, number: int) -> bool:
    return len(await reports(runner, "r")) >= number


@pytest.mark.parametrize(
    "arguments", [(-1,), (float("nan"),), (float("inf"),), (True,), ("1",), (10**40,), (1, -1), (1, "2"), (1, 2, 3)]
)
async def test_invalid_arguments_are_refused(arguments: Any) -> None:
    async def load(context: WorkflowContext, config: Config) -> None:
        with pytest.raises(DefinitionError, match="progress"):
            context.progress(*arguments)

    runner = Place(None).runner(work=False)
    (await runner.execute(Workflow("w", [Step.lambda_("load", load)]))).raise_for_status()


async def test_progress_after_the_end_of_the_attempt_is_refused() -> None:
    kept: list[WorkflowContext] = []

    async def load(context: WorkflowContext, config: Config) -> None:
        kept.append(context)
        context.progress(1)

    await Place(None).runner(work=False).execute(Workflow("w", [Step.lambda_("load", load)]))
    with pytest.raises(AttemptEndedError):
        kept[0].progress(2)
    assert kept[0].last_progress == Progress(1)
    assert WorkflowContext().last_progress is None


@pytest.mark.parametrize("settings", [{"dry_run": True}, {"checkpoint_enabled": False}, {"emit_events": False}])
async def test_without_stored_events_it_reaches_the_next_attempt_of_the_same_execution(
    settings: dict[str, bool],
) -> None:
    seen: list[Progress | None] = []

    async def load(context: WorkflowContext, config: Config) -> None:
        seen.append(context.last_progress)
        context.progress(7)
        if context.attempt == 1:
            raise StepError("again", category="TRANSIENT")

    runner = Place(None).runner(work=False, config=settings)
    (await runner.execute(Workflow("w", [Step.lambda_("load", load, retry=AGAIN)]), run_id="r")).raise_for_status()
    assert seen == [None, Progress(7)]


class TestIdleTimeout:
    """`idle_timeout` ends an attempt that neither emits nor reports."""

    @pytest.mark.parametrize("is_thread", [False, True])
    async def test_a_silent_attempt_ends_with_a_timeout_and_is_retried(self, place: Place, is_thread: bool) -> None:
        stop = threading.Event()
        reasons: list[str | None] = []

        async def on_loop(context: WorkflowContext, config: Config) -> None:
            if context.attempt == 1:
                try:
                    await anyio.sleep(60)
                finally:
                    reasons.append(context.cancel_reason)

        def on_thread(context: WorkflowContext, config: Config) -> None:
            if context.attempt == 1:
                stop.wait(10)
                reasons.append(context.cancel_reason)

        step = Step.lambda_("load", on_thread if is_thread else on_loop, idle_timeout=0.3, retry=AGAIN)
        async with place.runner(work=False) as runner:
            result = await runner.execute(Workflow("w", [step]), run_id="r")
            stop.set()
            await until(lambda: reasons)
            events = [event async for event in runner.events("r")]
        result.raise_for_status()
        assert reasons == ["step_timeout"]
        (retry,) = [event for event in events if event.event_type == "step_retrying"]
        assert retry.metadata["error_category"] == "TIMEOUT"
        assert "emitted no event and reported no progress for 0.3 s" in str(retry.metadata["error"])

    @pytest.mark.parametrize("how", ["emit", "progress", "thread"])
    def test_an_attempt_that_is_heard_of_goes_on(self, how: str) -> None:
        async def load(context: WorkflowContext, config: Config) -> None:
            for number in range(20):
                await anyio.sleep(0.9)
                if how == "emit":
                    context.emit("alive")
                elif how == "progress":
                    context.progress(number)
                else:
                    await anyio.to_thread.run_sync(context.progress, number)
            await anyio.sleep(1.1)

        async def execute() -> WorkflowResult:
            runner = WorkflowRunner(store=MemoryRunStore(), clock=VirtualClock())
            return await runner.execute(Workflow("w", [Step.lambda_("load", load, idle_timeout=1)]))

        result = run_virtual(execute)
        assert (result.status, result.error_category) == ("failed", "TIMEOUT")
        assert result.duration_ms == pytest.approx(19_000, abs=1)

    async def test_the_timeout_applies_besides(self) -> None:
        async def load(context: WorkflowContext, config: Config) -> None:
            while True:
                context.emit("alive")
                await anyio.sleep(0.001)

        step = Step.lambda_("load", load, idle_timeout=5, timeout=0.1)
        result = await Place(None).runner(work=False).execute(Workflow("w", [step]))
        assert (result.error_category, result.error) == ("TIMEOUT", "step 'load' timed out after 0.1 s")

    async def test_pipelines_have_it_too_and_it_needs_no_other_limit(self) -> None:
        dispatcher = LocalDispatcher()

        @dispatcher.pipeline("load")
        async def load(params: Mapping[str, object]) -> None:
            await anyio.sleep(60)

        runner = Place(None).runner(work=False, config={"default_step_timeout": None}, dispatcher=dispatcher)
        result = await runner.execute(Workflow("w", [Step.pipeline("load", "load", idle_timeout=0.05)]))
        assert result.error_category == "TIMEOUT"
        assert "reported no progress" in (result.error or "")

    @pytest.mark.parametrize("value", [0, -1, "soon", float("nan")])
    def test_an_invalid_limit_is_refused(self, value: Any) -> None:
        with pytest.raises(DefinitionError, match="idle_timeout"):
            Step.lambda_("load", lambda context, config: None, idle_timeout=value)


async def test_progress_survives_the_death_of_the_process(
    service: StartService, observer: WorkflowRunner, notes: Notes
) -> None:
    first = await service()
    handle = await observer.enqueue("counts", run_id="r")
    await until(lambda: _count(observer, 1))
    await first.kill()
    await service()
    assert (await handle.result(timeout=20)).status == "completed"
    (begun, again) = notes.read(what="progress", run="r")
    reported = [event.metadata["done"] for event in await reports(observer, "r") if event.metadata["execution"] == 1]
    assert begun["done"] is None
    assert again["done"] == reported[-1]
