"""The tasks of a map and the bytes of a step do not grow with the size of the run."""

from __future__ import annotations

from pathlib import Path

import anyio
import psycopg
import pytest

from spine_async import RunStatus, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio

PAYLOAD = 1_000


@pytest.mark.slow
async def test_a_map_of_20_000_items_never_has_more_tasks_than_it_may() -> None:
    most = 0

    async def trivial(context: WorkflowContext, config: dict[str, object]) -> dict[str, object]:
        nonlocal most
        item = context.params["item"]
        if item % 1_000 == 0:
            workers = [task for task in anyio.get_running_tasks() if "each worker" in (task.name or "")]
            most = max(most, len(workers))
        return {"item": item}

    step = Step.map("each", items=range(20_000), iterator=trivial, max_concurrency=100)
    result = await WorkflowRunner(store=MemoryRunStore()).execute(Workflow("w", [step]))
    assert result.status is RunStatus.COMPLETED
    assert 50 <= most <= 100
    output = result.context.outputs["each"]
    assert isinstance(output, dict)
    assert output["succeeded"] == 20_000
    assert [one["item"] for one in output["results"]] == list(range(20_000))


async def gives(context: WorkflowContext, config: dict[str, object]) -> dict[str, str]:
    return {"text": "x" * PAYLOAD}


def bytes_of(folder: Path, count: int) -> int:
    return sum(each.stat().st_size for each in folder.glob(f"{count}.db*"))


def steps(count: int) -> Workflow:
    return Workflow(f"steps-{count}", [Step.lambda_(f"step-{number}", gives) for number in range(count)])


def assert_linear(sizes: dict[int, int]) -> None:
    """The bytes of each further step are the same, early and late, and not far above the payload."""
    early = (sizes[300] - sizes[100]) / 200
    late = (sizes[1_000] - sizes[300]) / 700
    assert late / early == pytest.approx(1, abs=0.1), sizes
    assert late <= 1.5 * PAYLOAD, sizes


async def test_bytes_of_a_run_grow_linearly_on_sqlite(tmp_path: Path) -> None:
    sizes = {}
    for count in (100, 300, 1_000):
        file = tmp_path / f"{count}.db"
        await WorkflowRunner(config=WorkflowRunnerConfig(database_url=f"sqlite:///{file}")).execute(steps(count))
        sizes[count] = bytes_of(tmp_path, count)
    assert_linear(sizes)


async def test_bytes_of_a_run_grow_linearly_on_postgresql(postgres_url: str, postgres_dsn: str) -> None:
    sizes = {}
    total = (
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname LIKE 'core_workflow_%' AND relkind = 'r'"
    )
    for count in (100, 300, 1_000):
        await WorkflowRunner(config=WorkflowRunnerConfig(database_url=postgres_url)).execute(steps(count))
        async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
            row = await (await connection.execute(total)).fetchone()
            assert row is not None
            sizes[count] = int(row[0])
            await connection.execute("TRUNCATE core_workflow_runs, core_workflow_steps, core_workflow_event_log")
    assert_linear(sizes)
