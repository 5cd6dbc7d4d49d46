"""Contract of what a pipeline gets and of what becomes of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spine_async._model.step import Step
from spine_async._model.workflow import Workflow
from spine_async.ports import Dispatcher
from spine_async.testing.conformance.pipeline_steps import executed, pipeline_step, runner_of


class ResultContract:
    """A pipeline gets its params and its context, and its result is that of the step."""

    @pytest.mark.parametrize("pipeline", ["echo", "echo_async"])
    async def test_a_pipeline_gets_the_params_and_the_step(self, dispatcher: Dispatcher, pipeline: str) -> None:
        flow = pipeline_step(pipeline, {"table": "t", "nested": {"a": [1, 2.5, None, "ü"]}})
        result = await executed(dispatcher, flow, params={"table": "over", "big": 2**60}, run_id="run-1")
        output: Any = result.context.get_output("step")
        assert output == {
            "params": {"table": "t", "nested": {"a": [1, 2.5, None, "ü"]}, "big": 2**60},
            "run_id": "run-1",
            "step": "step",
            "attempt": 1,
            "key": output["key"],
            "cancelled": False,
            "reason": None,
        }
        assert output["key"]

    @pytest.mark.parametrize("kind", ["model", "dataclass"])
    async def test_models_and_dataclasses_are_outputs(self, dispatcher: Dispatcher, kind: str) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": kind}))
        assert result.context.get_output("step") == {"rows": 3}

    async def test_a_mapping_is_an_output(self, dispatcher: Dispatcher) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": "mapping"}))
        nested = [{"a": None, "b": [1.5, True]}]
        assert result.context.get_output("step") == {"rows": 3, "text": "über\u2028 \U0001f600", "nested": nested}

    async def test_a_pipeline_may_return_nothing(self, dispatcher: Dispatcher) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": "none"}))
        assert (result.status, result.context.get_output("step")) == ("completed", None)

    async def test_a_large_output(self, dispatcher: Dispatcher) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": "large"}))
        assert result.context.get_output("step") == {"text": "x" * 2_000_000}

    async def test_all_parts_of_a_result_arrive(self, dispatcher: Dispatcher) -> None:
        async with runner_of(dispatcher) as runner:
            flow = pipeline_step("return", {"kind": "ok"})
            result = await runner.execute(flow, params={"table": "old", "seen": [0]}, run_id="r")
            events = [event async for event in runner.events("r")]
        assert result.context.get_output("step") == {"rows": 3}
        assert (result.context.get_param("table"), result.context.get_param("seen")) == ("new", [0, 1, 2])
        quality = result.context.get_quality("step")
        assert quality is not None
        assert (quality.record_count, quality.valid_count) == (3, 2)
        (loaded,) = [event for event in events if event.event_type == "loaded"]
        assert loaded.metadata["rows"] == 3

    async def test_a_pipeline_may_skip(self, dispatcher: Dispatcher) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": "skip"}))
        assert (result.status, result.context.get_output("step")) == ("completed", {"rows": 0})
        assert result.skipped_steps == ["step"]

    async def test_a_pipeline_may_stop_the_run(self, dispatcher: Dispatcher) -> None:
        result = await executed(dispatcher, pipeline_step("return", {"kind": "stop"}))
        assert (result.status, result.stop_reason) == ("stopped", "enough")

    async def test_a_pipeline_is_found_by_its_module(self, dispatcher: Dispatcher) -> None:
        path = "spine_async.testing.conformance.pipelines:plain"
        result = await executed(dispatcher, Workflow("w", [Step.pipeline("step", path)]))
        assert result.context.get_output("step") == {"plain": True}

    async def test_a_map_runs_at_most_as_many_pipelines_as_it_allows(
        self, dispatcher: Dispatcher, tmp_path: Path
    ) -> None:
        item = Step.pipeline("item", "conformance.item", {"folder": str(tmp_path)})
        flow = Workflow("w", [Step.map("each", items=range(12), iterator=Workflow(steps=[item]), max_concurrency=3)])
        result = await executed(dispatcher, flow)
        results: Any = result.context.get_output("each", "results")
        assert [each["square"] for each in results] == [number**2 for number in range(12)]
        assert max(each["running"] for each in results) <= 3
