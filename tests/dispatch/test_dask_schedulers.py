"""Schedulers without workers, that cannot be reached, or that are lost. They run in the event loop of the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from distributed import LocalCluster, Scheduler, Worker

from spine_async import RetryPolicy, Step, Workflow, WorkflowResult, WorkflowRunner, WorkflowRunnerConfig
from spine_async.dispatch.dask import DaskDispatcher
from spine_async.storage import MemoryRunStore
from tests.dispatch.conftest import REGISTRY
from tests.servers.process import free_port
from tests.service.services import until

pytestmark = pytest.mark.anyio

ECHO = Workflow("w", [Step.pipeline("step", "conformance.echo")])


@asynccontextmanager
async def scheduler(port: int = 0) -> AsyncIterator[Scheduler]:
    async with Scheduler(host="127.0.0.1", port=port, dashboard_address="127.0.0.1:0", dashboard=False) as started:
        yield started


@asynccontextmanager
async def worker(address: str) -> AsyncIterator[Worker]:
    async with Worker(address, host="127.0.0.1", nthreads=2, dashboard=False) as started:
        yield started


def runner_at(address: str, **options: Any) -> WorkflowRunner:
    dispatcher = DaskDispatcher(address, pipelines=REGISTRY, **options)
    return WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher)


async def executed(runner: WorkflowRunner, flow: Workflow = ECHO) -> WorkflowResult:
    with anyio.fail_after(60):
        return await runner.execute(flow)


async def test_without_workers_a_pipeline_fails_after_a_while() -> None:
    async with scheduler() as started, runner_at(started.address, worker_timeout=0.2) as runner:
        for _ in range(2):
            result = await executed(runner)
            assert (result.status, result.error_category) == ("failed", "TRANSIENT")
            assert f"the Dask cluster at {started.address} has had no worker for 0.2 s" in str(result.error)
        await until(lambda: not started.tasks)


async def test_a_pipeline_waits_for_a_worker() -> None:
    async with scheduler() as started, runner_at(started.address) as runner:
        handle = await runner.start(ECHO)
        await until(lambda: started.tasks)
        async with worker(started.address):
            assert (await handle.result(timeout=60)).status == "completed"
        assert not started.workers
    assert set(started.clients) == {"fire-and-forget"}, "the client is closed with the runner"


async def test_a_cluster_object_gives_the_address() -> None:
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": "127.0.0.1:0"}
    async with LocalCluster(asynchronous=True, worker_dashboard_address="127.0.0.1:0", **options) as cluster:
        dispatcher = DaskDispatcher(cluster, pipelines=REGISTRY)
        async with WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher) as runner:
            assert (await executed(runner)).status == "completed"


async def test_a_scheduler_that_cannot_be_reached_is_transient(caplog: pytest.LogCaptureFixture) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    async with runner_at(address, connect_timeout=0.2) as runner:
        result = await executed(runner)
    assert (result.status, result.error_category) == ("failed", "TRANSIENT")
    assert f"the Dask scheduler at {address} cannot be reached" in str(result.error)
    assert "could not be closed" not in caplog.text


async def test_leaving_the_runner_ends_an_attempt_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        dispatcher = DaskDispatcher(address, pipelines=REGISTRY, connect_timeout=3600)
        config = WorkflowRunnerConfig(drain_timeout=0.05)
        runner = WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher, config=config)
        with anyio.fail_after(60):
            async with runner:
                handle = await runner.start(ECHO)
                accepted, _ = await anyio.to_thread.run_sync(silent.accept)
            accepted.close()
        assert await handle.status() == "pending"


async def test_a_lost_scheduler_is_transient_and_the_next_attempt_finds_its_successor() -> None:
    port = free_port()
    retry = RetryPolicy(max_attempts=20, delays=[0.05] * 19)
    flow = Workflow("w", [Step.pipeline("step", "conformance.echo", retry=retry)])
    async with runner_at(f"tcp://127.0.0.1:{port}", connect_timeout=5) as runner:
        async with scheduler(port) as first:
            handle = await runner.start(flow, run_id="r")
            await until(lambda: first.tasks)
        async with scheduler(port) as second, worker(second.address):
            result = await handle.result(timeout=60)
        assert result.status == "completed"
        retries = [event.metadata async for event in runner.events("r") if event.event_type == "step_retrying"]
    assert {each["error_category"] for each in retries} == {"TRANSIENT"}
    assert "cancelled or lost (scheduler-connection-lost)" in str(retries[0]["error"])


def test_a_dispatcher_serves_one_event_loop_after_the_other() -> None:
    port = free_port()
    dispatcher = DaskDispatcher(f"tcp://127.0.0.1:{port}", pipelines=REGISTRY)

    async def execute() -> None:
        async with scheduler(port) as started, worker(started.address):
            runner = WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher)
            assert (await executed(runner)).status == "completed"

    asyncio.run(execute())
    asyncio.run(execute())


async def test_a_runner_that_is_left_does_not_close_the_connection_of_another() -> None:
    async with scheduler() as started:
        dispatcher = DaskDispatcher(started.address, pipelines=REGISTRY)
        async with WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher) as other:
            handle = await other.start(ECHO)
            await until(lambda: started.tasks)
            async with WorkflowRunner(store=MemoryRunStore(), dispatcher=dispatcher):
                pass
            async with worker(started.address):
                assert (await handle.result(timeout=60)).status == "completed"
