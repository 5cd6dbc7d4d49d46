"""A dry run: lambdas run and see that it is a dry run; no other step executes, and nothing is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from spine_async import QualityThresholds, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPINE_DATABASE_URL", raising=False)
    return tmp_path


def made_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def tells(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"dry": context.is_dry_run, "param": context.params.get("__dry_run__")}


class NeverAsked:
    async def submit(self, pipeline: str, params: Mapping[str, Any], *, context: WorkflowContext) -> Any:
        raise AssertionError("a pipeline was called in a dry run")


DRY = [
    pytest.param({"dry_run": True}, id="argument"),
    pytest.param({"config": WorkflowRunnerConfig(dry_run=True)}, id="config"),
]


@pytest.mark.parametrize("settings", DRY)
async def test_lambdas_run_and_see_that_it_is_a_dry_run(settings: Any) -> None:
    result = await WorkflowRunner(**settings).execute(Workflow("w", [Step.lambda_("a", tells)]), params={"n": 1})
    assert result.status == "completed"
    assert result.context.get_output("a") == {"dry": True, "param": True}
    assert result.context.get_param("n") == 1


async def test_a_real_run_is_not_marked_as_a_dry_run(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.lambda_("a", tells)]))
    assert result.context.get_output("a") == {"dry": False, "param": None}


@pytest.mark.parametrize("settings", DRY)
async def test_no_file_is_made(workdir: Path, settings: Any) -> None:
    runner = WorkflowRunner(**settings)
    await runner.execute(Workflow("w", [Step.lambda_("a", tells), Step.wait("b", 0)]), run_id="r1")
    assert made_in(workdir) == []


async def test_no_database_is_made(workdir: Path) -> None:
    url = f"sqlite+aiosqlite:///{workdir / 'some.db'}"
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=url, dry_run=True)) as runner:
        await runner.execute(Workflow("w", [Step.lambda_("a", tells)]))
    assert made_in(workdir) == []


async def test_nothing_is_kept_in_a_store(make_runner: Any) -> None:
    calls = []

    async def counts(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        calls.append(context.is_dry_run)

    workflow = Workflow("w", [Step.lambda_("a", counts)])
    await make_runner(dry_run=True).execute(workflow, run_id="r1")
    await make_runner().execute(workflow, run_id="r1", params={"other": True})
    assert calls == [True, False]


async def test_pipelines_answer_without_being_called() -> None:
    steps = [Step.pipeline("load", "unknown.pipeline"), Step.lambda_("a", tells)]
    for dispatcher in (None, NeverAsked()):
        result = await WorkflowRunner(dispatcher=dispatcher, dry_run=True).execute(Workflow("w", steps))
        assert result.error is None
        assert result.completed_steps == ["load", "a"]


async def test_waits_do_not_wait() -> None:
    with anyio.fail_after(10):
        result = await WorkflowRunner(dry_run=True).execute(Workflow("w", [Step.wait("pause", 3600)]))
    assert result.completed_steps == ["pause"]


async def test_choices_and_maps_go_as_ever() -> None:
    steps = [
        Step.choice("pick", lambda context: True, "each"),
        Step.lambda_("between", tells),
        Step.map("each", items=[1, 2], iterator=tells),
    ]
    result = await WorkflowRunner(dry_run=True).execute(Workflow("w", steps))
    assert result.skipped_steps == ["between"]
    assert result.context.get_output("each", "results") == [{"dry": True, "param": True}] * 2


async def test_a_failure_is_reported() -> None:
    async def breaks(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        raise ValueError("even dry")

    result = await WorkflowRunner(dry_run=True).execute(Workflow("w", [Step.lambda_("a", breaks)]))
    assert (result.status, result.error_step) == ("failed", "a")
    assert "even dry" in str(result.error)


@pytest.mark.parametrize("params", [{"__dry_run__": True}])
async def test_a_param_alone_makes_no_dry_run(workdir: Path, params: dict[str, bool]) -> None:
    """`dry_run` is the runner's to set: a run whose params came from elsewhere is still stored."""
    async with WorkflowRunner() as runner:
        await runner.execute(Workflow("w", [Step.lambda_("a", tells)]), params=params)
    assert (workdir / ".spine" / "runs.db").is_file()


class Rows(BaseModel):
    rows: int


async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"read": context.get_output("load"), "all": dict(context.outputs)}


@pytest.mark.parametrize("is_item", [False, True])
async def test_a_pipeline_with_an_output_model_and_thresholds_succeeds(is_item: bool) -> None:
    """The pretended output is neither checked nor revived."""
    thresholds = QualityThresholds(min_record_count=1)
    steps = [
        Step.pipeline("load", "load", output_model=Rows, quality_thresholds=thresholds),
        Step.lambda_("reads", reads),
        Step.lambda_("model", lambda context, config: Rows(rows=3), output_model=Rows),
        Step.lambda_("last", lambda context, config: {"is_model": context.get_output("model") == Rows(rows=3)}),
    ]
    flow = Workflow("w", [Step.map("each", items=[1], iterator=Workflow(steps=steps))] if is_item else steps)
    result = await WorkflowRunner(dry_run=True).execute(flow)
    assert result.status == "completed", result.error
    last: Any = result.context.get_output("each")["results"][0] if is_item else result.context.get_output("last")  # type: ignore[index]
    assert last == {"is_model": True}
    if not is_item:
        assert result.context.get_output("reads", "read") == {"dry_run": True, "pipeline": "load"}


@pytest.mark.parametrize("way", ["as_is", "with_params", "stored", "metadata"])
async def test_a_context_of_a_dry_run_makes_no_dry_run(runner: WorkflowRunner, way: str) -> None:
    flow = Workflow("w", [Step.lambda_("a", tells)])
    dry = await WorkflowRunner(dry_run=True).execute(flow, params={"n": 1})
    context = dry.context
    if way == "with_params":
        context = context.with_params({"m": 2})
    elif way == "stored":
        context = WorkflowContext.from_dict(context.to_dict())
    elif way == "metadata":
        context = context.with_metadata({"__dry_run__": True})
    result = await runner.execute(flow, context=context, run_id="r")
    assert result.context.get_output("a") == {"dry": False, "param": None}
    assert result.context.get_param("n") == 1
    assert not result.context.is_dry_run
    assert "__dry_run__" not in result.context.metadata
    assert "__dry_run__" not in (await runner.get_run("r")).params
