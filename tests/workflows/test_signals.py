"""Signals: who takes which one, models, timeouts, tokens, and what a resume finds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import (
    DefinitionError,
    Event,
    InvalidSignalError,
    RetryPolicy,
    RunEndedError,
    RunNotFoundError,
    RunRecord,
    SignalStep,
    Step,
    StepError,
    StepResult,
    StoreError,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._model.due import Notice
from spine_async._model.run_claim import Claim
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio

Config: TypeAlias = Mapping[str, object]
MakeRunner: TypeAlias = Callable[..., WorkflowRunner]
NO_SIGNAL = {"value": None, "received_at": None, "timed_out": True}


class Approval(BaseModel):
    by: str
    at: datetime
    limit: int = 0


GIVEN = {"by": "Ada", "at": "2026-01-02T03:04:05Z"}


@pytest.fixture(params=["memory", "sqlite"])  # "postgres" follows with its inbox
def make_runner(request: pytest.FixtureRequest) -> MakeRunner:
    """Runners on one store, like the runners of several processes."""
    memory = MemoryRunStore()
    names = {"sqlite": "sqlite_url", "postgres": "cleared_postgres_url"}
    url = request.getfixturevalue(names[request.param]) if request.param != "memory" else None

    def make(
        workflow: Workflow | None = None, *, cls: type[WorkflowRunner] = WorkflowRunner, **config: Any
    ) -> WorkflowRunner:
        store = memory if url is None else None
        settings = WorkflowRunnerConfig(database_url=url, poll_interval=0.05, **config)
        return cls(store=store, config=settings, workflows=[workflow] if workflow is not None else [])

    return make


@pytest.fixture
def runner(make_runner: MakeRunner) -> WorkflowRunner:
    return make_runner()


async def send(
    runner: WorkflowRunner, run_id: str, name: str, value: object = None, *, key: Any = None, connection: Any = None
) -> None:
    await runner.signal(run_id, name, value, idempotency_key=key, connection=connection)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(20):
        while not await condition():  # noqa: ASYNC110 - other processes may change what it looks at
            await anyio.sleep(0.001)


async def events_of(runner: WorkflowRunner, run_id: str, kind: str) -> list[Event]:
    try:
        return [event async for event in runner.events(run_id) if event.event_type == kind]
    except RunNotFoundError:
        return []


async def waits(runner: WorkflowRunner, run_id: str, *, path: str = "approval", times: int = 1) -> None:
    """Return when the visit at this path waits for a signal, for this many times in the run."""

    async def has_begun() -> bool:
        started = await events_of(runner, run_id, "step_started")
        return sum(event.path == path for event in started) >= times

    await until(has_begun)


@asynccontextmanager
async def executing(
    runner: WorkflowRunner, workflow: Workflow, run_id: str = "r", **options: Any
) -> AsyncIterator[Any]:
    """Execute a run meanwhile; leaving the context waits for its result, which the yielded list then contains."""
    results: list[WorkflowResult] = []

    async def work() -> None:
        results.append(await runner.execute(workflow, run_id=run_id, **options))

    with anyio.fail_after(20):
        async with runner, anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            yield results


async def failed_before(runner: WorkflowRunner, workflow: Workflow, run_id: str = "r") -> None:
    """A run that stopped before its wait, so that signals arrive early."""
    result = await runner.execute(workflow, run_id=run_id)
    assert result.status == "stopped"


def approval(**options: Any) -> SignalStep:
    return Step.wait_for_signal("approval", **options)


def stops_once() -> Step:
    seen: list[bool] = []

    async def stop(context: WorkflowContext, config: Config) -> StepResult | None:
        seen.append(True)
        return StepResult.stop("not yet") if len(seen) == 1 else None

    return Step.lambda_("before", stop)


def tells(name: str, *keys: str) -> Step:
    """A step whose output is what it reads of the wait."""

    async def tell(context: WorkflowContext, config: Config) -> dict[str, object]:
        read = context.get_output("approval", *keys)
        return {"kind": type(read).__name__, "read": read}

    return Step.lambda_(name, tell)


def item_flow(**options: Any) -> Workflow:
    inner = Workflow(steps=[approval(**options)])
    return Workflow("w", [Step.map("each", items=["a", "b", "c"], iterator=inner)])


def values(result: WorkflowResult) -> list[object]:
    return [each["value"] for each in result.context.get_output("each", "results")]


# Who takes which signal.


async def test_a_signal_that_comes_while_the_step_waits(runner: WorkflowRunner) -> None:
    async with executing(runner, Workflow("w", [approval(), tells("after", "value")])) as results:
        await waits(runner, "r")
        assert (await runner.get_run("r")).status == "waiting"
        await send(runner, "r", "approval", {"yes": True})
    output = results[0].context.get_output("approval")
    assert output == {"value": {"yes": True}, "received_at": output["received_at"], "timed_out": False}
    assert datetime.fromisoformat(output["received_at"]).utcoffset() == timedelta(0)
    assert results[0].context.get_output("after", "read") == {"yes": True}


async def test_a_signal_that_came_before_the_step(runner: WorkflowRunner) -> None:
    workflow = Workflow("w", [stops_once(), approval()])
    async with runner:
        await failed_before(runner, workflow)
        await send(runner, "r", "approval", 7)
        result = await runner.resume("r")
        assert result.context.get_output("approval", "value") == 7
        assert [
            event.metadata for event in await events_of(runner, "r", "step_started") if event.path == "approval"
        ] == [{"signal": "approval", "until": None}]


async def test_a_signal_from_another_runner(make_runner: MakeRunner) -> None:
    async with executing(make_runner(), Workflow("w", [approval()])) as results:
        other = make_runner()
        await waits(other, "r")
        await send(other, "r", "approval", "from afar")
    assert results[0].context.get_output("approval", "value") == "from afar"


async def test_each_visit_takes_one_signal_in_the_order_of_arrival(runner: WorkflowRunner) -> None:
    async def is_last(context: WorkflowContext) -> bool:
        return bool(context.get_output("approval", "value") == "last")

    steps = [stops_once(), approval(signal="go"), Step.choice("again", is_last, "end", "approval")]
    async with runner:
        workflow = Workflow("w", [*steps, Step.lambda_("end", lambda context, config: {})])
        await failed_before(runner, workflow)
        for value in ("first", "second", "last", "left over"):
            await send(runner, "r", "go", value)
        result = await runner.resume("r")
        assert result.status == "completed"
        checkpoints = await runner.list_checkpoints("r")
    taken = [(each.path, each.context_snapshot["outputs"]) for each in checkpoints if each.step_name == "approval"]
    read = [(path, outputs["approval"]["value"]) for path, outputs in taken]  # type: ignore[index]
    assert read == [("approval", "first"), ("approval#2", "second"), ("approval#3", "last")]


async def test_items_that_wait_for_one_name_share_the_signals(runner: WorkflowRunner) -> None:
    async with executing(runner, item_flow()) as results:
        for index in range(3):
            await waits(runner, "r", path=f"each[{index}]/approval")
        for value in (1, 2, 3):
            await send(runner, "r", "approval", value)
    assert sorted(values(results[0])) == [1, 2, 3]  # type: ignore[type-var]


async def test_the_same_idempotency_key_twice_is_one_signal(runner: WorkflowRunner) -> None:
    workflow = Workflow(
        "w", [stops_once(), approval(), Step.wait_for_signal("second", signal="approval", timeout=0.02)]
    )
    async with runner:
        await failed_before(runner, workflow)
        await send(runner, "r", "approval", 1, key="k")
        await send(runner, "r", "approval", 2, key="k")
        result = await runner.resume("r")
    assert result.context.get_output("approval", "value") == 1
    assert result.error_category == "TIMEOUT"


async def test_signals_of_other_names_are_left_alone(runner: WorkflowRunner) -> None:
    async with executing(runner, Workflow("w", [approval(), Step.wait_for_signal("other")])) as results:
        await waits(runner, "r")
        await send(runner, "r", "other", "o")
        await send(runner, "r", "approval", "a")
    assert results[0].context.get_output("approval", "value") == "a"
    assert results[0].context.get_output("other", "value") == "o"


async def test_a_taken_signal_is_not_taken_again_after_a_resume(make_runner: MakeRunner) -> None:
    workflow = Workflow(
        "w", [approval(), stops_once(), Step.wait_for_signal("second", signal="approval", timeout=0.02)]
    )
    async with executing(make_runner(), workflow):
        other = make_runner()
        await waits(other, "r")
        await send(other, "r", "approval", "one")
    result = await make_runner().resume("r", workflow=workflow)
    assert result.context.get_output("approval", "value") == "one"
    assert result.error_category == "TIMEOUT"


# Models.


@pytest.mark.parametrize("value", [GIVEN, Approval.model_validate(GIVEN)], ids=["plain", "instance"])
async def test_later_steps_read_the_value_as_the_model(make_runner: MakeRunner, value: object) -> None:
    steps = [approval(model=Approval), tells("first", "value"), stops_once(), tells("second", "value"), tells("third")]
    workflow = Workflow("w", steps)
    async with executing(make_runner(), workflow) as results:
        other = make_runner(workflow)
        await waits(other, "r")
        await send(other, "r", "approval", value)
    resumed = await make_runner().resume("r", workflow=workflow)
    for result, step in ((results[0], "first"), (resumed, "second")):
        assert result.context.get_output(step)["kind"] == "Approval"
        assert result.context.get_output(step)["read"]["by"] == "Ada"
    for result in (results[0], resumed):
        assert result.context.get_output("approval")["value"] == Approval.model_validate(GIVEN)
        assert result.context.get_output("approval", "value", model=Approval).limit == 0
    assert resumed.context.get_output("third", "kind") == "dict"


@pytest.mark.parametrize("shape", ["run", "item"])
async def test_a_value_that_does_not_fit_is_refused_where_the_workflow_is_known(
    make_runner: MakeRunner, shape: str
) -> None:
    workflow = item_flow(model=Approval) if shape == "item" else Workflow("w", [approval(model=Approval)])
    path = "each[0]/approval" if shape == "item" else "approval"
    token = path if shape == "item" else "approval#1"
    async with executing(make_runner(), workflow) as results:
        other = make_runner(workflow)
        await waits(other, "r", path=path)
        for name in ("approval", token):
            with pytest.raises(InvalidSignalError, match=r"signal '.*' for run 'r': its value does not fit Approval: "):
                await send(other, "r", name, {"by": "Ada"})
        for _ in range(3 if shape == "item" else 1):
            await send(other, "r", "approval", GIVEN)
    assert results[0].status == "completed"


class DatedApproval(Approval):
    until: datetime


async def test_a_value_of_a_subclass_whose_fields_would_be_lost_is_refused(make_runner: MakeRunner) -> None:
    workflow = Workflow("w", [approval(model=Approval)])
    async with executing(make_runner(), workflow) as results:
        other = make_runner(workflow)
        await waits(other, "r", path="approval")
        given = DatedApproval.model_validate({**GIVEN, "until": GIVEN["at"]})
        with pytest.raises(InvalidSignalError, match="it is a DatedApproval, whose other fields the model would drop"):
            await send(other, "r", "approval", given)
        await send(other, "r", "approval", Approval.model_validate(GIVEN))
    assert results[0].status == "completed"


async def test_a_value_that_does_not_fit_when_it_is_read(make_runner: MakeRunner) -> None:
    workflow = Workflow("w", [approval(model=Approval), tells("after", "value")])
    sender = make_runner()
    async with executing(make_runner(), workflow) as results:
        await waits(sender, "r")
        await send(sender, "r", "approval", {"by": "Bob"})
    assert (results[0].status, results[0].error_category) == ("failed", "DATA_QUALITY")
    assert "signal 'approval' does not fit Approval" in str(results[0].error)
    (rejected,) = await events_of(sender, "r", "signal_rejected")
    assert rejected.path == "approval"
    assert (rejected.metadata["signal"], rejected.metadata["value"]) == ("approval", {"by": "Bob"})

    await send(sender, "r", "approval", {"by": "Eve"})
    again = await make_runner().resume("r", workflow=workflow)
    assert again.error_category == "DATA_QUALITY"
    assert [event.metadata["value"] for event in await events_of(sender, "r", "signal_rejected")] == [
        {"by": "Bob"},
        {"by": "Eve"},
    ]

    await send(sender, "r", "approval", GIVEN)
    result = await make_runner().resume("r", workflow=workflow)
    assert result.status == "completed"
    assert result.context.get_output("after", "kind") == "Approval"


async def test_a_bad_value_for_an_item(make_runner: MakeRunner) -> None:
    workflow, sender = item_flow(model=Approval), make_runner()
    async with executing(make_runner(), workflow) as results:
        for index in range(3):
            await waits(sender, "r", path=f"each[{index}]/approval")
        await send(sender, "r", "each[1]/approval", "bad")
    assert results[0].status == "failed"
    for _ in range(3):
        await send(sender, "r", "approval", GIVEN)
    result = await make_runner().resume("r", workflow=workflow)
    assert result.status == "completed"
    assert [each["by"] for each in values(result)] == ["Ada"] * 3  # type: ignore[index]


# Timeouts.


async def test_a_timeout_fails_the_step(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [approval(timeout=0.02)]))
    assert (result.status, result.error_step, result.error_category) == ("failed", "approval", "TIMEOUT")
    assert result.error == "step 'approval' received no signal 'approval' within 0.02 s"


async def test_a_timeout_that_continues(runner: WorkflowRunner) -> None:
    steps = [approval(timeout=0.02, on_timeout="continue", model=Approval), tells("after")]
    result = await runner.execute(Workflow("w", steps))
    assert result.context.get_output("approval") == NO_SIGNAL
    assert result.context.get_output("after", "read") == NO_SIGNAL


@pytest.mark.parametrize("is_in_time", [True, False])
async def test_a_timeout_that_goes_to_a_step(make_runner: MakeRunner, is_in_time: bool) -> None:
    waiting = approval(timeout=30 if is_in_time else 0.02, on_timeout="remind")
    steps = [waiting, tells("accept"), stops_once(), tells("remind"), stops_once_named("pause")]
    workflow = Workflow("w", steps)
    async with executing(make_runner(), workflow) as results:
        if is_in_time:
            other = make_runner()
            await waits(other, "r")
            await send(other, "r", "approval", "in time")
    first = ["approval", "accept", "before"] if is_in_time else ["approval", "remind", "pause"]
    assert results[0].completed_steps == first
    resumed = await make_runner().resume("r", workflow=workflow)
    assert resumed.status == ("stopped" if is_in_time else "completed")
    if not is_in_time:
        skipped = await events_of(make_runner(), "r", "step_skipped")
        assert [event.step_name for event in skipped] == ["accept", "before"]


def stops_once_named(name: str) -> Step:
    step = stops_once()
    return Step.lambda_(name, step.handler)  # type: ignore[attr-defined]


async def test_a_failed_wait_that_the_run_tolerates(runner: WorkflowRunner) -> None:
    steps = [approval(timeout=0.02, on_error="continue"), Step.lambda_("after", lambda context, config: {"ran": True})]
    result = await runner.execute(Workflow("w", steps))
    assert result.context.get_output("after") == {"ran": True}


async def test_a_signal_rescues_a_run_that_timed_out(runner: WorkflowRunner) -> None:
    async with runner:
        result = await runner.execute(Workflow("w", [approval(timeout=0.02)]), run_id="r")
        assert result.error_category == "TIMEOUT"
        await send(runner, "r", "approval", "late")
        assert (await runner.resume("r")).context.get_output("approval", "value") == "late"


# Stop, resume, cancellation.


@pytest.mark.parametrize("timeout", [3600, None])
async def test_a_resumed_run_waits_until_the_stored_deadline(make_runner: MakeRunner, timeout: float | None) -> None:
    workflow, other = Workflow("w", [approval(timeout=timeout)]), make_runner()
    async with executing(runner := make_runner(), workflow) as results:
        await waits(runner, "r")
        await runner.stop("r")
    assert results[0].status == "stopped"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(make_runner().resume, "r", workflow=workflow))
        await waits(other, "r", times=2)
        await until(lambda: has_status(other, "waiting"))
        await send(other, "r", "approval", "at last")
    first, second = [event.metadata for event in await events_of(other, "r", "step_started")]
    assert first == second
    assert (first["until"] is None) == (timeout is None)
    record = await other.get_run("r")
    assert record.status == "completed"
    assert read_value(record) == "at last"


def read_value(record: RunRecord) -> object:
    return (record.outputs or {})["approval"]["value"]  # type: ignore[index]


async def has_status(runner: WorkflowRunner, status: str) -> bool:
    return (await runner.get_run("r")).status == status


async def test_a_stored_deadline_that_has_passed(make_runner: MakeRunner) -> None:
    workflow = Workflow("w", [approval(timeout=0.3, on_timeout="continue")])
    async with executing(runner := make_runner(), workflow):
        await waits(runner, "r")
        (started,) = await events_of(runner, "r", "step_started")
        await runner.stop("r")
    deadline = datetime.fromisoformat(str(started.metadata["until"]))
    await until(lambda: has_passed(deadline))
    result = await make_runner().resume("r", workflow=workflow)
    assert result.context.get_output("approval") == NO_SIGNAL


async def has_passed(moment: datetime) -> bool:
    return datetime.now(moment.tzinfo) > moment


async def test_a_visit_that_is_cancelled_after_it_took_a_signal_gives_it_back(make_runner: MakeRunner) -> None:
    taken = anyio.Event()
    runner, workflow = make_runner(), Workflow("w", [approval()])

    @runner.middleware
    async def holds(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        result: StepResult = await next_fn(step, context)
        taken.set()
        await anyio.sleep_forever()
        return result

    async with executing(runner, workflow) as results:
        other = make_runner()
        await waits(other, "r")
        await send(other, "r", "approval", "kept")
        await taken.wait()
        await runner.stop("r")
    assert results[0].status == "stopped"
    result = await make_runner().resume("r", workflow=workflow)
    assert result.context.get_output("approval", "value") == "kept"


async def test_middleware_that_fails_the_step_after_it_took_a_signal(make_runner: MakeRunner) -> None:
    runner, workflow = make_runner(), Workflow("w", [stops_once(), approval()])

    @runner.middleware
    async def refuses(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        result: StepResult = await next_fn(step, context)
        return StepResult.fail("no") if step.name == "approval" else result

    async with runner:
        await failed_before(runner, workflow)
        await send(runner, "r", "approval", "kept")
        assert (await runner.resume("r")).status == "failed"
    result = await make_runner().resume("r", workflow=workflow)
    assert result.context.get_output("approval", "value") == "kept"


async def test_middleware_that_executes_the_step_twice_takes_one_signal(make_runner: MakeRunner) -> None:
    second = Step.wait_for_signal("second", signal="approval")
    runner, workflow = make_runner(), Workflow("w", [stops_once(), approval(), second])

    @runner.middleware
    async def twice(step: Any, context: WorkflowContext, next_fn: Any) -> StepResult:
        if step.name == "approval":
            await next_fn(step, context)
        result: StepResult = await next_fn(step, context)
        return result

    async with runner:
        await failed_before(runner, workflow)
        await send(runner, "r", "approval", 1)
        await send(runner, "r", "approval", 2)
        result = await runner.resume("r")
    assert [result.context.get_output(name, "value") for name in ("approval", "second")] == [1, 2]


async def test_items_that_were_cancelled_wait_again_when_their_map_is_retried(make_runner: MakeRunner) -> None:
    async def fails_once(context: WorkflowContext, config: Config) -> None:
        if context.params["item"] == "a" and not seen:
            seen.append(True)
            raise StepError("once", category="TRANSIENT")

    seen: list[bool] = []
    inner = Workflow(steps=[approval(), Step.lambda_("check", fails_once)])
    workflow = Workflow("w", [Step.map("each", items=["a", "b"], iterator=inner, on_error="retry")])
    runner = make_runner(default_retry_policy=fast_retry())
    async with executing(runner, workflow) as results:
        await waits(runner, "r", path="each[0]/approval")
        await waits(runner, "r", path="each[1]/approval")
        await send(runner, "r", "each[0]/approval", "A")
        await until(lambda: has_events(runner, "step_retrying"))
        await send(runner, "r", "each[1]/approval", "B")
    assert results[0].status == "completed"
    assert len(await events_of(runner, "r", "signal_rejected")) == 0


def fast_retry() -> Any:
    return RetryPolicy(max_attempts=2, initial_delay=0.0)


async def has_events(runner: WorkflowRunner, kind: str) -> bool:
    return bool(await events_of(runner, "r", kind))


@pytest.mark.parametrize("shape", ["run", "item"])
async def test_a_parked_run_is_woken_by_its_signal(make_runner: MakeRunner, shape: str) -> None:
    workflow = item_flow(timeout=3600) if shape == "item" else Workflow("w", [approval(timeout=3600)])
    async with make_runner(workflow, park_after=0.0) as runner:
        handle = await runner.start(workflow, run_id="r")
        await until(partial(is_parked, runner))
        for index in range(3 if shape == "item" else 1):
            await send(runner, "r", "approval", index)
        result = await handle.result(timeout=20)
        started = await events_of(runner, "r", "step_started")
        resumed = await events_of(runner, "r", "workflow_resumed")
    assert result.status == "completed"
    assert [event.path for event in started].count("each[0]/approval" if shape == "item" else "approval") == 1
    assert resumed == []


async def is_parked(runner: WorkflowRunner) -> bool:
    stored = await runner._runtime.store.load("r")
    return stored is not None and stored.owner is None


# Tokens.


async def test_a_token_addresses_one_visit(runner: WorkflowRunner) -> None:
    tokens: dict[str, str] = {}

    async def ask(context: WorkflowContext, config: Config) -> None:
        tokens[context.params["item"]] = context.signal_token

    inner = Workflow(steps=[Step.lambda_("ask", ask), approval()])
    workflow = Workflow("w", [Step.map("each", items=["a", "b"], iterator=inner)])
    async with executing(runner, workflow) as results:
        await waits(runner, "r", path="each[0]/approval")
        await waits(runner, "r", path="each[1]/approval")
        await send(runner, "r", tokens["b"], "for b")
        await send(runner, "r", tokens["a"], "for a")
    assert tokens == {"a": "each[0]/approval", "b": "each[1]/approval"}
    assert values(results[0]) == ["for a", "for b"]


async def test_the_token_of_each_visit_in_a_loop(runner: WorkflowRunner) -> None:
    tokens: list[str] = []

    async def ask(context: WorkflowContext, config: Config) -> None:
        tokens.append(context.signal_token)

    async def is_second(context: WorkflowContext) -> bool:
        return len(tokens) == 2

    choice = Step.choice("again", is_second, "end", "ask")
    end = Step.lambda_("end", lambda context, config: {})
    workflow = Workflow("w", [Step.lambda_("ask", ask), approval(), choice, end])
    async with executing(runner, workflow) as results:
        await waits(runner, "r")
        await send(runner, "r", "approval#2", "second")
        await send(runner, "r", "approval#1", "first")
    assert tokens == ["approval#1", "approval#2"]
    assert results[0].context.get_output("approval", "value") == "second"


async def test_a_token_where_nothing_waits(runner: WorkflowRunner) -> None:
    async def ask(context: WorkflowContext, config: Config) -> dict[str, str]:
        return {"token": context.signal_token}

    result = await runner.execute(
        Workflow("w", [approval(timeout=0.01, on_timeout="continue"), Step.lambda_("ask", ask)])
    )
    assert result.status == "failed"
    assert "signal_token needs a step that waits for a signal" in str(result.error)
    with pytest.raises(DefinitionError, match="only from the context of a running step"):
        WorkflowContext().signal_token  # noqa: B018 - the property raises


# What is refused.


async def test_a_run_that_does_not_exist_or_has_completed(runner: WorkflowRunner) -> None:
    async with runner:
        with pytest.raises(RunNotFoundError):
            await send(runner, "r", "approval")
        await runner.execute(Workflow("w", [Step.lambda_("a", lambda context, config: {})]), run_id="r")
        with pytest.raises(RunEndedError, match="run 'r' has completed, so it takes no signal 'approval'"):
            await send(runner, "r", "approval")


@pytest.mark.parametrize(
    ("name", "value", "key", "problem"),
    [
        ("", 1, None, "a name must not be empty"),
        (7, 1, None, "a name must be a string, not int"),
        ("a" * 201, 1, None, "too long"),
        ("m[1]/" + "a" * 2700, 1, None, "a token has at most 2,600 bytes"),
        ("go", 1, "", "an idempotency key must not be empty"),
        ("go", 1, "k" * 201, "an idempotency key of 201 characters is too long"),
        ("go", {"a": object()}, None, r"its value cannot be stored: \$\.a: a value of type object"),
        ("go", float("nan"), None, "its value cannot be stored"),
        ("go", "x" * 2000, None, r"its value has 2,002 bytes as JSON, more than max_value_bytes \(1,000\)"),
        ("go", ["x" * 300_000], None, r"its value has 300,004 bytes as JSON, more than max_value_bytes \(1,000\)"),
    ],
)
async def test_a_signal_that_cannot_be_stored(
    make_runner: MakeRunner, name: Any, value: object, key: Any, problem: str
) -> None:
    with pytest.raises(InvalidSignalError, match=problem):
        await send(make_runner(max_value_bytes=1000), "r", name, value, key=key)


async def test_a_large_value_arrives(runner: WorkflowRunner) -> None:
    class Large(BaseModel):
        parts: list[str]

    given = {"parts": ["x" * 100_000] * 30}
    workflow = Workflow("w", [stops_once(), approval(model=Large)])
    async with runner:
        await failed_before(runner, workflow)
        await send(runner, "r", "approval", given)
        result = await runner.resume("r")
    assert result.context.get_output("approval", "value") == Large.model_validate(given)


async def test_a_store_without_signals() -> None:
    class Plain:
        """Only the port of runs."""

        def __init__(self) -> None:
            inner = MemoryRunStore()
            for method in (*RUN_STORE, "close", "open"):
                setattr(self, method, getattr(inner, method))

    runner = WorkflowRunner(store=Plain())  # type: ignore[arg-type]
    result = await runner.execute(Workflow("w", [approval()]), run_id="r")
    assert result.error_category == "CONFIGURATION"
    assert "Plain stores no signals" in str(result.error)
    with pytest.raises(StoreError, match="Plain stores no signals"):
        await send(runner, "r", "approval")


RUN_STORE = (*("create", "claim", "renew", "request_stop", "commit", "load", "visits", "runs", "events", "delete"),)


async def test_a_runner_that_stores_nothing() -> None:
    runner = WorkflowRunner(checkpoint_enabled=False)
    result = await runner.execute(Workflow("w", [approval()]))
    assert result.error_category == "CONFIGURATION"
    assert "stores nothing" in str(result.error)
    with pytest.raises(DefinitionError, match="stores nothing"):
        await send(runner, "r", "approval")


async def test_a_dry_run_does_not_wait() -> None:
    steps = [approval(timeout=3600, on_timeout="after", model=Approval), tells("after")]
    result = await WorkflowRunner(dry_run=True).execute(Workflow("w", steps))
    assert result.context.get_output("after", "read") == {**NO_SIGNAL, "timed_out": False}


# The rest of the engine.


async def test_the_extension_point(make_runner: MakeRunner) -> None:
    class Own(WorkflowRunner):
        async def _execute_signal(self, step: SignalStep, context: WorkflowContext) -> StepResult:
            return StepResult.ok({"value": context.signal_token, "received_at": None, "timed_out": False})

    result = await make_runner(cls=Own).execute(Workflow("w", [approval()]))
    assert result.context.get_output("approval", "value") == "approval#1"


async def test_a_store_that_fails_while_signals_are_read() -> None:
    class Broken(MemoryRunStore):
        is_broken = True

        async def notices(self, claims: Sequence[Claim]) -> list[Notice]:
            if self.is_broken:
                raise StoreUnavailableError("no answer")
            return await super().notices(claims)

    runner, workflow = WorkflowRunner(store=Broken()), Workflow("w", [approval(timeout=0.01, on_timeout="continue")])
    with pytest.raises(StoreUnavailableError):
        await runner.execute(workflow, run_id="r")
    Broken.is_broken = False
    assert (await runner.execute(workflow, run_id="r")).context.get_output("approval") == NO_SIGNAL


async def test_a_signal_in_the_callers_transaction(make_runner: MakeRunner, request: pytest.FixtureRequest) -> None:
    if "memory" in request.node.name:
        with pytest.raises(StoreError, match="MemoryRunStore cannot store a signal in your transaction"):
            await send(make_runner(), "r", "approval", connection=object())
        return
    runner, workflow = make_runner(), Workflow("w", [approval()])
    engine = create_async_engine(str(runner.config.database_url), isolation_level="AUTOCOMMIT")
    async with executing(runner, workflow) as results, engine.connect() as connection:
        await waits(runner, "r")
        for end, value in (("ROLLBACK", "rolled back"), ("COMMIT", "committed")):
            await connection.execute(text("BEGIN IMMEDIATE"))
            await send(runner, "r", "approval", value, connection=connection)
            await connection.execute(text(end))
    assert results[0].context.get_output("approval", "value") == "committed"
    await engine.dispose()
