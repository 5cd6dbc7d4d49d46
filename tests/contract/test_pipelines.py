"""Pipeline steps, the dispatcher in the box, and dispatchers that users write."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from spine_async import LocalDispatcher, RetryPolicy, Step, StepError, StepResult, Workflow, WorkflowContext

pytestmark = pytest.mark.anyio


class Loaded(BaseModel):
    rows: int


@dataclass
class Counted:
    rows: int


@pytest.fixture
def dispatcher() -> LocalDispatcher:
    return LocalDispatcher()


def workflow(pipeline: str = "load", **options: Any) -> Workflow:
    return Workflow("w", [Step.pipeline("step", pipeline, {"table": "t", "limit": 5}, **options)])


async def test_a_pipeline_receives_the_params_of_its_step(make_runner: Any, dispatcher: LocalDispatcher) -> None:
    @dispatcher.pipeline("load")
    async def load(params: Mapping[str, Any]) -> dict[str, Any]:
        return {"table": params["table"], "limit": params["limit"], "thread": threading.get_ident()}

    result = await make_runner(dispatcher=dispatcher).execute(workflow(), params={"limit": 99})
    assert result.context.get_output("step") == {"table": "t", "limit": 5, "thread": threading.get_ident()}
    assert result.completed_steps == ["step"]


async def test_a_plain_pipeline(make_runner: Any, dispatcher: LocalDispatcher) -> None:
    @dispatcher.pipeline("load")
    def load(params: Mapping[str, Any]) -> dict[str, Any]:
        return {"table": params["table"], "thread": threading.get_ident()}

    result = await make_runner(dispatcher=dispatcher).execute(workflow())
    assert result.context.get_output("step", "table") == "t"
    assert result.context.get_output("step", "thread") != threading.get_ident()


async def test_the_decorator_leaves_the_function_usable(dispatcher: LocalDispatcher) -> None:
    @dispatcher.pipeline("load")
    def load(params: Mapping[str, Any]) -> dict[str, Any]:
        return {"rows": params["rows"]}

    assert load({"rows": 3}) == {"rows": 3}


@pytest.mark.parametrize("returned", [{"rows": 3}, Loaded(rows=3), Counted(rows=3)])
async def test_what_a_pipeline_returns_is_the_output(
    make_runner: Any, dispatcher: LocalDispatcher, returned: Any
) -> None:
    @dispatcher.pipeline("load")
    async def load(params: Mapping[str, Any]) -> Any:
        return returned

    result = await make_runner(dispatcher=dispatcher).execute(workflow())
    assert result.context.get_output("step") == {"rows": 3}


async def test_an_unknown_pipeline_is_a_configuration_failure(make_runner: Any, dispatcher: LocalDispatcher) -> None:
    for name in ("load.orders", "load.prices"):
        dispatcher.pipeline(name)(lambda params: {})
    result = await make_runner(dispatcher=dispatcher).execute(workflow("load.order"))
    assert (result.status, result.error_step, result.error_category) == ("failed", "step", "CONFIGURATION")
    for name in ("load.order", "load.orders", "load.prices"):
        assert name in result.error


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (ConnectionError("no route"), "TRANSIENT"),
        (TimeoutError("no answer"), "TIMEOUT"),
        (ValueError("no number"), "INTERNAL"),
        (StepError("no licence", category="CONFIGURATION"), "CONFIGURATION"),
    ],
)
@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_pipeline_that_raises(
    make_runner: Any, dispatcher: LocalDispatcher, error: Exception, category: str, kind: str
) -> None:
    async def coroutine(params: Mapping[str, Any]) -> Any:
        raise error

    def plain(params: Mapping[str, Any]) -> Any:
        raise error

    dispatcher.pipeline("load")(coroutine if kind == "async def" else plain)
    result = await make_runner(dispatcher=dispatcher).execute(workflow())
    assert (result.status, result.error_step, result.error_category) == ("failed", "step", category)
    assert str(error) in result.error


async def test_a_pipeline_is_retried(make_runner: Any, dispatcher: LocalDispatcher) -> None:
    calls = []

    @dispatcher.pipeline("load")
    async def load(params: Mapping[str, Any]) -> dict[str, int]:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("no route")
        return {"calls": len(calls)}

    retry = RetryPolicy(max_attempts=3, initial_delay=0, jitter=False)
    result = await make_runner(dispatcher=dispatcher).execute(workflow(retry=retry))
    assert result.context.get_output("step") == {"calls": 3}


async def test_a_pipeline_that_returns_something_else_fails(make_runner: Any, dispatcher: LocalDispatcher) -> None:
    @dispatcher.pipeline("load")
    async def load(params: Mapping[str, Any]) -> Any:
        return ["hunter2"]

    result = await make_runner(dispatcher=dispatcher).execute(workflow())
    assert (result.status, result.error_step) == ("failed", "step")
    assert "list" in result.error
    assert "hunter2" not in result.error


class Recording:
    """A dispatcher that a user wrote."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.submitted: list[tuple[str, dict[str, Any], WorkflowContext]] = []

    async def submit(self, pipeline: str, params: Mapping[str, Any], *, context: WorkflowContext) -> Any:
        self.submitted.append((pipeline, dict(params), context))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [{"rows": 3}, StepResult.ok({"rows": 3})])
async def test_a_dispatcher_of_ones_own(make_runner: Any, answer: Any) -> None:
    dispatcher = Recording(answer)
    result = await make_runner(dispatcher=dispatcher).execute(workflow("remote.load"), run_id="r1")
    assert result.context.get_output("step") == {"rows": 3}
    ((pipeline, params, context),) = dispatcher.submitted
    assert pipeline == "remote.load"
    assert {"table": "t", "limit": 5}.items() <= params.items()
    assert (context.run_id, context.step_name) == ("r1", "step")
    assert context.idempotency_key


@pytest.mark.parametrize(
    "answer",
    [StepResult.fail("queue is full", category="DEPENDENCY"), StepError("queue is full", category="DEPENDENCY")],
)
async def test_a_dispatcher_that_fails(make_runner: Any, answer: Any) -> None:
    result = await make_runner(dispatcher=Recording(answer)).execute(workflow())
    assert (result.status, result.error_step, result.error_category) == ("failed", "step", "DEPENDENCY")
    assert "queue is full" in result.error


async def test_a_dispatcher_may_update_params(make_runner: Any) -> None:
    dispatcher = Recording(StepResult.ok({"rows": 3}, context_updates={"table": "new"}))
    result = await make_runner(dispatcher=dispatcher).execute(workflow())
    assert result.context.get_param("table") == "new"
