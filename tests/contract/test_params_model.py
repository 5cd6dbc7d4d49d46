"""`params_model` and `defaults`: the checks before anything is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio


class Params(BaseModel):
    symbol: str
    limit: int = Field(default=10, ge=1)


class Reads:
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, context: WorkflowContext, config: Mapping[str, Any]) -> None:
        self.seen.append(dict(context.params))

    def workflow(self, **options: Any) -> Workflow:
        return Workflow("w", [Step.lambda_("a", self)], **options)


@pytest.mark.parametrize(
    ("params", "named"),
    [(None, "symbol"), ({}, "symbol"), ({"symbol": "X", "limit": 0}, "limit"), ({"symbol": ["X"]}, "symbol")],
)
async def test_params_that_do_not_fit(runner: WorkflowRunner, params: Any, named: str) -> None:
    reads = Reads()
    with pytest.raises(ValueError, match=named):
        await runner.execute(reads.workflow(params_model=Params), params=params, run_id="r1")
    assert reads.seen == []
    assert await runner.list_runs() == []


async def test_no_file_is_made_for_params_that_do_not_fit(tmp_path: Path) -> None:
    config = WorkflowRunnerConfig(database_url=f"sqlite+aiosqlite:///{tmp_path / 'runs.db'}")
    async with WorkflowRunner(config=config) as runner:
        with pytest.raises(ValueError, match="symbol"):
            await runner.execute(Reads().workflow(params_model=Params))
    assert not (tmp_path / "runs.db").exists()


async def test_the_values_of_params_are_not_in_the_error(runner: WorkflowRunner) -> None:
    with pytest.raises(ValueError, match="limit") as refused:
        await runner.execute(Reads().workflow(params_model=Params), params={"symbol": "X", "limit": "hunter2"})
    assert "hunter2" not in str(refused.value)


async def test_params_that_fit(runner: WorkflowRunner) -> None:
    reads = Reads()
    result = await runner.execute(reads.workflow(params_model=Params), params={"symbol": "X", "limit": 5})
    assert result.status == "completed"
    assert reads.seen == [{"symbol": "X", "limit": 5}]


async def test_defaults_lie_below_the_params(runner: WorkflowRunner) -> None:
    reads = Reads()
    workflow = reads.workflow(defaults={"limit": 10, "mode": "fast"})
    await runner.execute(workflow, params={"limit": 5})
    await runner.execute(workflow)
    assert reads.seen == [{"limit": 5, "mode": "fast"}, {"limit": 10, "mode": "fast"}]


async def test_defaults_count_for_the_model(runner: WorkflowRunner) -> None:
    reads = Reads()
    result = await runner.execute(reads.workflow(defaults={"symbol": "X"}, params_model=Params), params={"limit": 5})
    assert result.status == "completed"
    assert reads.seen == [{"symbol": "X", "limit": 5}]


async def test_a_param_that_is_a_model_may_be_given(runner: WorkflowRunner) -> None:
    reads = Reads()
    await runner.execute(reads.workflow(), params={"inner": Params(symbol="X")})
    assert reads.seen == [{"inner": {"symbol": "X", "limit": 10}}]
