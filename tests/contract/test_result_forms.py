"""`WorkflowResult` leaves the process: as JSON values and pickled."""

import json
import pickle
from typing import Any

from pydantic import BaseModel

from spine_async import QualityMetrics, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner


class Output(BaseModel):
    n: int


async def _result(runner: WorkflowRunner) -> Any:
    steps = [
        Step.lambda_("a", lambda _c, _d: StepResult.ok(Output(n=1), quality=QualityMetrics(3)), output_model=Output),
        Step.lambda_("b", lambda _c, _d: StepResult.fail("broken")),
    ]
    context = WorkflowContext(metadata={"list": [1]}, partition={"day": 1})
    return await runner.execute(Workflow("w", steps), params={"p": [1]}, context=context, run_id="r")


async def test_a_result_as_json_values(runner: WorkflowRunner) -> None:
    result = await _result(runner)
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["run_id"], plain["status"], plain["error_step"], plain["error"]) == ("r", "failed", "b", "broken")
    assert plain["context"] == result.context.to_dict()
    assert [each["name"] for each in plain["step_metrics"]] == ["a", "b"]
    assert "exception" not in plain


async def test_a_result_is_pickled(runner: WorkflowRunner) -> None:
    result = await _result(runner)
    assert result.context.get_output("a") == Output(n=1)
    copy = pickle.loads(pickle.dumps(result))
    assert copy.to_dict() == result.to_dict()
    assert copy.context.get_output("a", model=Output) == Output(n=1)
    assert copy.context.metadata["list"] == [1]
