"""The configuration: defaults, refused values and precedence."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import create_async_engine

from spine_async import RetryPolicy, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig

pytestmark = pytest.mark.anyio

WORKFLOW = Workflow("w", [Step.lambda_("a", lambda context, config: {"n": 1})])


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPINE_DATABASE_URL", raising=False)
    return tmp_path


def made_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_it_is_a_pydantic_model() -> None:
    assert isinstance(WorkflowRunnerConfig(), BaseModel)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoint_enabled", True),
        ("checkpoint_every_step", True),
        ("checkpoint_storage", "database"),
        ("database_url", None),
        ("redis_url", None),
        ("default_step_timeout", 300),
        ("workflow_timeout", None),
        ("default_retry_policy", RetryPolicy(max_attempts=3)),
        ("emit_events", True),
        ("trace_enabled", True),
        ("max_concurrent_steps", None),
        ("max_step_visits", 10_000),
        ("dry_run", False),
    ],
)
def test_the_defaults(field: str, value: Any) -> None:
    assert getattr(WorkflowRunnerConfig(), field) == value


def test_the_folder_of_file_checkpoints() -> None:
    assert str(WorkflowRunnerConfig().checkpoint_dir) == ".spine/runs"


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_concurency"):
        WorkflowRunnerConfig(max_concurency=5)  # type: ignore[call-arg]


def test_it_is_frozen() -> None:
    config = WorkflowRunnerConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.dry_run = True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("checkpoint_storage", "cassandra"),
        ("default_step_timeout", -1),
        ("workflow_timeout", -1),
        ("max_concurrent_steps", -1),
        ("max_step_visits", -1),
        ("dry_run", "perhaps"),
        ("durability", "disk"),
    ],
)
def test_a_wrong_value_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        WorkflowRunnerConfig(**{field: value})


async def test_a_runner_with_nothing_given_is_durable(workdir: Path) -> None:
    runner = WorkflowRunner()
    assert made_in(workdir) == []
    async with runner:
        result = await runner.execute(WORKFLOW)
    assert result.status == "completed"
    assert count(workdir / ".spine" / "runs.db", "core_workflow_runs") == 1


async def test_a_runner_needs_no_context_manager(workdir: Path) -> None:
    runner = WorkflowRunner()
    first = await runner.execute(WORKFLOW)
    await runner.execute(WORKFLOW)
    again = await runner.execute(WORKFLOW, run_id=first.run_id)
    assert again.run_id == first.run_id
    assert count(workdir / ".spine" / "runs.db", "core_workflow_runs") == 2


async def test_the_environment_names_the_database(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_DATABASE_URL", url_of(workdir / "env.db"))
    async with WorkflowRunner() as runner:
        await runner.execute(WORKFLOW)
    assert count(workdir / "env.db", "core_workflow_runs") == 1
    assert not (workdir / ".spine").exists()


async def test_the_config_wins_over_the_environment(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_DATABASE_URL", url_of(workdir / "env.db"))
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=url_of(workdir / "config.db"))) as runner:
        await runner.execute(WORKFLOW)
    assert count(workdir / "config.db", "core_workflow_runs") == 1
    assert not (workdir / "env.db").exists()


async def test_an_engine_wins_over_the_config(workdir: Path) -> None:
    engine = create_async_engine(url_of(workdir / "engine.db"))
    config = WorkflowRunnerConfig(database_url=url_of(workdir / "config.db"))
    async with WorkflowRunner(engine, config=config) as runner:
        await runner.execute(WORKFLOW)
    await engine.dispose()
    assert count(workdir / "engine.db", "core_workflow_runs") == 1
    assert not (workdir / "config.db").exists()


async def test_a_store_wins_over_the_config(workdir: Path, make_runner: Any) -> None:
    async with make_runner(config=WorkflowRunnerConfig(database_url=url_of(workdir / "config.db"))) as runner:
        await runner.execute(WORKFLOW)
    assert not (workdir / "config.db").exists()


@pytest.mark.parametrize(("argument", "configured"), [(True, False), (False, True)])
async def test_an_argument_wins_over_the_config(workdir: Path, argument: bool, configured: bool) -> None:
    seen = []

    async def tells(context: WorkflowContext, config: Any) -> None:
        seen.append(context.is_dry_run)

    config = WorkflowRunnerConfig(dry_run=configured, database_url=url_of(workdir / "some.db"))
    async with WorkflowRunner(dry_run=argument, config=config) as runner:
        await runner.execute(Workflow("w", [Step.lambda_("a", tells)]))
    assert seen == [argument]


@pytest.mark.parametrize(
    ("arguments", "configured", "rows"),
    [({}, True, 1), ({}, False, 0), ({"checkpoint_enabled": False}, True, 0), ({"checkpoint_enabled": True}, False, 1)],
)
async def test_checkpoints_may_be_left_out(workdir: Path, arguments: Any, configured: bool, rows: int) -> None:
    path = workdir / "some.db"
    config = WorkflowRunnerConfig(checkpoint_enabled=configured, database_url=url_of(path))
    async with WorkflowRunner(config=config, **arguments) as runner:
        result = await runner.execute(WORKFLOW)
    assert result.status == "completed"
    assert (count(path, "core_workflow_checkpoints") if path.exists() else 0) == rows


@pytest.mark.parametrize("emit", [True, False])
async def test_events_may_be_left_out(workdir: Path, emit: bool) -> None:
    path = workdir / "some.db"
    async with WorkflowRunner(config=WorkflowRunnerConfig(emit_events=emit, database_url=url_of(path))) as runner:
        await runner.execute(WORKFLOW)
    assert (count(path, "core_workflow_events") > 0) is emit
    assert count(path, "core_workflow_checkpoints") == 1
