"""Pipelines on a real Dask cluster: lost workers, owners that die, wrong settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from distributed import Client
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spine_async import (
    DefinitionError,
    MissingExtraError,
    RetryPolicy,
    Step,
    Workflow,
    WorkflowResult,
    WorkflowRunner,
)
from spine_async.dispatch.dask import DaskDispatcher
from spine_async.storage import MemoryRunStore
from spine_async.testing.conformance.pipeline_steps import appears, pipeline_step, runner_of, touch
from tests.dispatch import runner_process
from tests.dispatch.conftest import REGISTRY, DaskCluster
from tests.interpreter import ROOT, environment
from tests.service.services import until

pytestmark = pytest.mark.anyio

AGAIN = RetryPolicy(max_attempts=2, initial_delay=0, jitter=False)
PIPELINES = "tests.dispatch.pipelines:dispatcher"


async def run(
    address: str, pipeline: str, params: Mapping[str, object] | None = None, **options: Any
) -> WorkflowResult:
    registry = options.pop("pipelines", PIPELINES)
    dispatcher = DaskDispatcher(address, pipelines=registry, worker_timeout=120)
    async with WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher) as runner:
        flow = Workflow("w", [Step.pipeline("step", pipeline, params or {}, **options)])
        with anyio.fail_after(120):
            return await runner.execute(flow)


async def test_a_killed_worker_is_transient_and_the_policy_retries(
    cluster_to_hurt: DaskCluster, dispatcher: DaskDispatcher, tmp_path: Path
) -> None:
    async with runner_of(dispatcher) as runner:
        flow = pipeline_step("ignore", {"folder": str(tmp_path)}, retry=AGAIN)
        handle = await runner.start(flow, run_id="r")
        killed = int(await appears(tmp_path, "begun-1"))
        os.kill(killed, signal.SIGKILL)
        assert int(await appears(tmp_path, "begun-2")) != killed
        await touch(tmp_path, "go_on")
        result = await handle.result(timeout=60)
        events = [event async for event in runner.events("r")]
    assert result.context.get_output("step") == {"attempt": 2}
    (retry,) = [event for event in events if event.event_type == "step_retrying"]
    assert retry.metadata["error_category"] == "TRANSIENT"
    assert "pipeline 'conformance.ignore': the Dask worker tcp://127.0.0.1:" in str(retry.metadata["error"])


async def test_a_pipeline_that_kills_its_workers_ends_failed_and_named(
    cluster_to_hurt: DaskCluster, tmp_path: Path
) -> None:
    result = await run(cluster_to_hurt.address, "die", {"folder": str(tmp_path)}, retry=AGAIN)
    assert (result.status, result.error_step, result.error_category) == ("failed", "step", "TRANSIENT")
    assert "pipeline 'die': the Dask worker tcp://127.0.0.1:" in str(result.error)
    assert (tmp_path / "deaths").read_text() == "xx", "one for each attempt: Dask repeats nothing by itself"


@pytest.mark.slow
async def test_a_map_survives_killed_workers(
    cluster_to_hurt: DaskCluster, dispatcher: DaskDispatcher, tmp_path: Path
) -> None:
    retry = RetryPolicy(max_attempts=20, initial_delay=0.05, backoff="constant", jitter=False)
    item = Step.pipeline("item", "conformance.item", {"folder": str(tmp_path)}, retry=retry)
    flow = Workflow("w", [Step.map("each", items=range(60), iterator=Workflow(steps=[item]), max_concurrency=16)])
    async with runner_of(dispatcher) as runner:
        handle = await runner.start(flow, run_id="r")

        async def count() -> int:
            return sum([event.event_type == "map_item_completed" async for event in runner.events("r")])

        async def is_begun(number: int) -> bool:
            return await count() >= number

        for number in (8, 24):
            await until(lambda number=number: is_begun(number), within=60)
            async with Client(cluster_to_hurt.address, asynchronous=True, set_as_default=False) as client:
                victim = next(iter((await client.run(os.getpid, on_error="ignore")).values()))
            os.kill(victim, signal.SIGKILL)
        result = await handle.result(timeout=120)
        retried = [event async for event in runner.events("r") if event.event_type == "step_retrying"]
    results: Any = result.context.get_output("each", "results")
    assert [each["square"] for each in results] == [number**2 for number in range(60)]
    assert {event.metadata["error_category"] for event in retried} <= {"TRANSIENT"}


async def test_an_exit_is_a_failure_and_the_worker_goes_on(cluster: DaskCluster) -> None:
    before = {(await run(cluster.address, "pid")).context.get_output("step", "pid") for _ in range(6)}
    result = await run(cluster.address, "exit")
    assert (result.status, result.error_category) == ("failed", "INTERNAL")
    assert "SystemExit: 3" in str(result.error)
    after = {(await run(cluster.address, "pid")).context.get_output("step", "pid") for _ in range(6)}
    assert before & after


async def test_a_deep_recursion_is_a_failure(cluster: DaskCluster) -> None:
    result = await run(cluster.address, "recurse")
    assert (result.status, result.error_category) == ("failed", "INTERNAL")
    assert "RecursionError" in str(result.error)


async def test_a_run_that_was_released_waits_for_the_task_that_still_runs(cluster: DaskCluster, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'runs.db'}"
    async with runner_process.runner(cluster.address, url) as first:
        await first.start(runner_process.flow(tmp_path), run_id="r")
        await appears(tmp_path, "begun-1")
    await _joined(cluster, url, tmp_path)


async def test_a_run_whose_process_was_killed_waits_for_the_task_that_still_runs(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'runs.db'}"
    arguments = [sys.executable, "-m", "tests.dispatch.runner_process", cluster.address, url, str(tmp_path)]
    async with await anyio.open_process(arguments, cwd=ROOT, env={**os.environ, **environment()}) as process:
        await appears(tmp_path, "begun-1")
        process.kill()
    await _joined(cluster, url, tmp_path)


async def _joined(cluster: DaskCluster, url: str, folder: Path) -> None:
    """Continue the run, and find that its pipeline has begun only once."""
    before = await _waiters(cluster.address)
    async with runner_process.runner(cluster.address, url) as second, anyio.create_task_group() as group:
        results: list[WorkflowResult] = []

        async def execute() -> None:
            results.append(await second.execute(runner_process.flow(folder), run_id="r"))

        async def is_awaited() -> bool:
            return bool(await _waiters(cluster.address) - before)

        group.start_soon(execute)
        await until(is_awaited, every=0.05, within=60)
        await touch(folder, "go_on")
    assert results[0].context.get_output("step") == {"attempt": 1}
    assert [each.name for each in folder.glob("begun-*")] == ["begun-1"]

    async def is_forgotten() -> bool:
        return not await _waiters(cluster.address)

    await until(is_forgotten, every=0.05, within=60)


async def _waiters(address: str) -> set[str]:
    """The clients that wait for tasks of pipelines."""
    async with Client(address, asynchronous=True, set_as_default=False) as client:
        found: list[str] = await client.run_on_scheduler(_wanted_by)
    return set(found)


def _wanted_by(dask_scheduler: Any) -> list[str]:
    tasks = dask_scheduler.tasks.values()
    wanted = [task.who_wants or () for task in tasks if str(task.key).startswith("spine_async:")]
    return [client.client_key for each in wanted for client in each]


async def test_a_pipeline_belongs_to_the_span_of_its_step(cluster: DaskCluster) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    dispatcher = DaskDispatcher(cluster.address, pipelines=REGISTRY)
    async with runner_of(dispatcher, tracer_provider=provider) as runner:
        result = await runner.execute(pipeline_step("trace"))
    (step,) = [span for span in exporter.get_finished_spans() if span.name == "step step"]
    assert step.context is not None
    assert result.context.get_output("step", "span_id") == f"{step.context.span_id:016x}"


@pytest.mark.parametrize(
    ("registry", "problem"),
    [
        ("tests.dispatch.no_such_module:dispatcher", "No module named"),
        ("tests.dispatch.pipelines:no_such_name", "no_such_name"),
        ("tests.dispatch.pipelines:NOT_A_REGISTRY", "it must be a Pipelines or a LocalDispatcher"),
    ],
)
async def test_a_registry_that_the_worker_does_not_find(cluster: DaskCluster, registry: str, problem: str) -> None:
    result = await run(cluster.address, "pid", pipelines=registry)
    assert (result.status, result.error_category) == ("failed", "CONFIGURATION")
    assert problem in str(result.error)
    assert "on the Dask worker tcp://127.0.0.1:" in str(result.error)


async def test_params_that_cannot_be_sent(cluster: DaskCluster) -> None:
    result = await run(cluster.address, "pid", {"client": object()})
    assert (result.status, result.error_category) == ("failed", "CONFIGURATION")
    assert "$.client" in str(result.error)


async def test_a_client_gives_the_address(cluster: DaskCluster) -> None:
    async with Client(cluster.address, asynchronous=True, set_as_default=False) as client:
        dispatcher = DaskDispatcher(client, pipelines=REGISTRY)
        async with runner_of(dispatcher) as runner:
            assert (await runner.execute(pipeline_step("echo"))).status == "completed"
        assert client.status == "running"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"cluster": "127.0.0.1"}, "cluster is '127.0.0.1'"),
        ({"cluster": 8786}, "cluster is of type int"),
        ({"pipelines": "shop.pipelines"}, "package.module:attribute"),
        ({"pipelines": ":x"}, "package.module:attribute"),
        ({"worker_timeout": 0}, "worker_timeout"),
        ({"connect_timeout": "soon"}, "connect_timeout"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        DaskDispatcher(**{"cluster": "tcp://127.0.0.1:1", **arguments})


def test_the_extra_is_imported_with_the_first_connection() -> None:
    program = (
        "import sys; from spine_async.dispatch.dask import DaskDispatcher; DaskDispatcher('tcp://127.0.0.1:1'); "
        "assert not {'distributed', 'dask', 'tblib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env={**os.environ, **environment()})


def test_without_the_extra_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spine_async.dispatch.dask.dispatcher.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'spine-async\[dask\]'"):
        DaskDispatcher("tcp://127.0.0.1:1")
