"""Contract of the failures of pipelines."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from spine_async._model.policy import RetryPolicy
from spine_async._model.step import Step
from spine_async._model.workflow import Workflow
from spine_async.errors import RunFailedError
from spine_async.ports import Dispatcher
from spine_async.testing.conformance.pipeline_steps import executed, pipeline_step, runner_of


def _at_once(retryable: Any = ("TRANSIENT", "TIMEOUT"), attempts: int = 3) -> RetryPolicy:
    return RetryPolicy(max_attempts=attempts, initial_delay=0, jitter=False, retryable_errors=retryable)


class FailureContract:
    """An exception of a pipeline is the failure of its step: category, text, retry hint, type and traceback."""

    @pytest.mark.parametrize(
        ("kind", "category", "text"),
        [
            ("own", "INTERNAL", "ConformanceError: no number"),
            ("connection", "TRANSIENT", "ConnectionError: no route"),
            ("timeout", "TIMEOUT", "TimeoutError: no answer"),
            ("step_error", "DEPENDENCY", "StepError: quota used up"),
            ("group", "TRANSIENT", "ExceptionGroup of 2: ConformanceError: first; ConnectionError: second"),
        ],
    )
    async def test_an_exception_is_a_failure(self, dispatcher: Dispatcher, kind: str, category: str, text: str) -> None:
        pipeline = "raise_async" if kind in ("own", "connection") else "raise"
        result = await executed(dispatcher, pipeline_step(pipeline, {"kind": kind}))
        assert (result.status, result.error_step, result.error_category) == ("failed", "step", category)
        assert text in str(result.error)

    async def test_a_validation_error_does_not_show_the_value(self, dispatcher: Dispatcher) -> None:
        result = await executed(dispatcher, pipeline_step("raise", {"kind": "validation"}))
        assert (result.status, result.error_category) == ("failed", "DATA_QUALITY")
        assert "rows: " in str(result.error)
        assert "hunter2" not in str(result.error)

    @pytest.mark.parametrize(("kind", "category"), [("fail", "DEPENDENCY"), ("own_category", "BUDGET")])
    async def test_a_pipeline_may_return_a_failure(self, dispatcher: Dispatcher, kind: str, category: str) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": kind}))
        assert (result.status, result.error_step, result.error_category) == ("failed", "step", category)

    @pytest.mark.parametrize("kind", ["list", "object"])
    async def test_a_value_that_cannot_be_stored_is_a_failure(self, dispatcher: Dispatcher, kind: str) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": kind}))
        assert (result.status, result.error_step) == ("failed", "step")
        assert kind in str(result.error)
        assert "hunter2" not in str(result.error)

    @pytest.mark.parametrize("name", ["conformance.ech", "spine_async.no_such_module:load"])
    async def test_an_unknown_pipeline_is_a_failure_of_the_configuration(
        self, dispatcher: Dispatcher, name: str
    ) -> None:
        result = await executed(dispatcher, Workflow("w", [Step.pipeline("step", name)]))
        assert (result.status, result.error_step, result.error_category) == ("failed", "step", "CONFIGURATION")
        assert name.partition(":")[0] in str(result.error)

    @pytest.mark.parametrize(
        "retryable", ["TRANSIENT", OSError, ConnectionError, lambda error: isinstance(error, ConnectionError)]
    )
    async def test_a_failure_is_retried_by_category_type_and_predicate(
        self, dispatcher: Dispatcher, retryable: Any
    ) -> None:
        params = {"kind": "connection", "attempts": 3}
        result = await executed(dispatcher, pipeline_step("fail_first", params, retry=_at_once(retryable)))
        assert result.context.get_output("step") == {"attempt": 3}

    @pytest.mark.parametrize("retryable", ["TIMEOUT", ValueError])
    async def test_another_failure_is_not_retried(self, dispatcher: Dispatcher, retryable: Any) -> None:
        params = {"kind": "connection", "attempts": 3}
        result = await executed(dispatcher, pipeline_step("fail_first", params, retry=_at_once(retryable)))
        assert (result.status, result.step_metrics[0].attempts) == ("failed", 1)

    @pytest.mark.parametrize(("pipeline", "kind"), [("raise", "step_error"), ("raise", "hint"), ("return", "fail")])
    async def test_the_hint_for_the_retry_arrives(self, dispatcher: Dispatcher, pipeline: str, kind: str) -> None:
        retry = RetryPolicy(max_attempts=2, initial_delay=0, retryable_errors=("DEPENDENCY", "TRANSIENT"))
        async with runner_of(dispatcher) as runner:
            handle = await runner.start(pipeline_step(pipeline, {"kind": kind}, retry=retry), run_id="r")
            async for event in runner.events("r", follow=True):
                if event.event_type == "step_retrying":
                    assert 7 <= float(str(event.metadata["delay"])) <= 7.5
                    break
            await handle.stop("seen")
            assert (await handle.result()).status == "stopped"

    async def test_the_traceback_arrives(self, dispatcher: Dispatcher) -> None:
        result = await executed(dispatcher, pipeline_step("raise", {"kind": "own"}))
        with pytest.raises(RunFailedError) as raised:
            result.raise_for_status()
        shown = "".join(traceback.format_exception(raised.value))
        assert "ConformanceError" in shown
        assert "raise_error" in shown, "the function that raised it"
        assert "KeyError" in shown, "its cause"
