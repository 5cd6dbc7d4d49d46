"""A runner belongs to one event loop and one process at a time; other uses get an error at once, never a hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from spine_async import SharingError, Step, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import created, new_run

HERE = Path(__file__).parents[2]
TIME_LIMIT = 20.0


async def nothing(context: WorkflowContext, config: object) -> None:
    await asyncio.sleep(0)


FLOW = Workflow("w", [Step.lambda_("nothing", nothing)])


def run_flow(runner: WorkflowRunner) -> str:
    return asyncio.run(runner.execute(FLOW)).status.value


def outcome(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except SharingError as exc:
        return f"SharingError: {exc}"
    except BaseException:
        return traceback.format_exc()


@pytest.fixture
def runner(database_url: str) -> WorkflowRunner:
    return WorkflowRunner(config=WorkflowRunnerConfig(database_url=database_url))


@pytest.mark.parametrize("is_def", [False, True])
@pytest.mark.parametrize("method", ["once", "flush"])
def test_a_handler_cannot_await_its_context_in_another_loop(runner: WorkflowRunner, method: str, is_def: bool) -> None:
    """A `def` handler that uses a library by `asyncio.run` would wait for ever, or change the run from its thread."""

    async def use(context: WorkflowContext) -> None:
        for number in range(3):
            context.emit("noted", {"number": number})
            await (context.once("call", dict) if method == "once" else context.flush())

    def in_thread(context: WorkflowContext, config: object) -> None:
        asyncio.run(asyncio.wait_for(use(context), TIME_LIMIT))

    async def on_loop(context: WorkflowContext, config: object) -> None:
        await asyncio.to_thread(in_thread, context, config)

    async def main() -> None:
        async with runner:
            step = Step.lambda_("uses", in_thread if is_def else on_loop)
            result = await runner.execute(Workflow("w2", [step]))
            assert f"SharingError: context.{method} of step 'uses' was awaited in another event loop" in str(
                result.error
            )
            assert (await runner.execute(FLOW)).status == "completed"

    asyncio.run(main())


class OwnLoop:
    """An event loop that stays open, so that asyncpg's connections can be closed in it at the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._loop = asyncio.new_event_loop()

    def run_flow(self, runner: WorkflowRunner) -> str:
        return self._loop.run_until_complete(runner.execute(FLOW)).status.value

    def run(self, work: Coroutine[Any, Any, str]) -> str:
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        self._loop.run_until_complete(self.engine.dispose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture
def first(database_url: str) -> Iterator[OwnLoop]:
    made = OwnLoop(create_async_engine(database_url))
    yield made
    made.close()


class TestLoops:
    def test_event_loops_one_after_the_other(self, runner: WorkflowRunner) -> None:
        assert [run_flow(runner) for _ in range(4)] == ["completed"] * 4

    def test_threads_one_after_the_other(self, runner: WorkflowRunner) -> None:
        with ThreadPoolExecutor(1) as threads:
            assert run_flow(runner) == threads.submit(run_flow, runner).result(TIME_LIMIT) == "completed"

    def test_a_runner_in_use_in_another_thread_says_so_at_once(self, runner: WorkflowRunner) -> None:
        async def while_entered() -> list[str]:
            async with runner:
                with ThreadPoolExecutor(3) as threads:
                    calls = [threads.submit(outcome, lambda: run_flow(runner)) for _ in range(3)]
                    found = [await asyncio.wait_for(asyncio.wrap_future(call), TIME_LIMIT) for call in calls]
                assert (await runner.execute(FLOW)).status.value == "completed"
                return found

        for each in asyncio.run(while_entered()):
            assert each.startswith("SharingError: this runner is in use in another event loop, in the thread 'MainTh")
            assert "create a runner for each event loop" in each
        assert run_flow(runner) == "completed"

    def test_four_threads_with_a_loop_each(self, runner: WorkflowRunner) -> None:
        barrier = threading.Barrier(4)

        def call() -> str:
            barrier.wait(TIME_LIMIT)
            return outcome(lambda: run_flow(runner))

        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(call) for _ in range(4)]
            found = [each.result(TIME_LIMIT) for each in calls]
        assert "completed" in found
        assert all(each == "completed" or each.startswith("SharingError: ") for each in found), found
        assert run_flow(runner) == "completed"

    def test_a_runner_that_a_closed_loop_left_open_works_again(self, sqlite_url: str) -> None:
        """On PostgreSQL too, but the connection that was left open cannot be closed without its loop."""
        runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=sqlite_url))

        async def enter() -> None:
            await runner.__aenter__()
            await runner.execute(FLOW)

        asyncio.run(enter())
        assert run_flow(runner) == "completed"

    def test_a_store_that_is_open_in_another_running_loop(self, database_url: str) -> None:
        store = SqlRunStore(database_url)

        async def while_open() -> str:
            await created(store)
            with ThreadPoolExecutor(1) as threads:
                call = threads.submit(outcome, lambda: asyncio.run(store.load("run-1")))
                found = await asyncio.wait_for(asyncio.wrap_future(call), TIME_LIMIT)
            await created(store, new_run("run-2"))
            await store.close()
            return found

        assert asyncio.run(while_open()).startswith("SharingError: the store is open in another running event loop")


class TestEngines:
    def test_an_engine_across_event_loops(self, first: OwnLoop) -> None:
        """aiosqlite's connections work in any loop; asyncpg's belong to one."""
        runner = WorkflowRunner(first.engine)
        assert first.run_flow(runner) == "completed"
        for _ in range(3):
            found = outcome(lambda: run_flow(runner))
            if first.engine.dialect.name == "sqlite":
                assert found == "completed"
            else:
                assert found.startswith("SharingError: db_engine holds connections of another event loop")
                assert "await engine.dispose()" in found

    @pytest.mark.parametrize("options", [{"pool_pre_ping": True}, {"pool_use_lifo": True}])
    def test_a_pool_that_pings_says_the_same(self, postgres_url: str, options: dict[str, Any]) -> None:
        first = OwnLoop(create_async_engine(postgres_url, **options))
        runner = WorkflowRunner(first.engine)
        assert first.run_flow(runner) == "completed"
        for _ in range(2):
            assert outcome(lambda: run_flow(runner)).startswith("SharingError: db_engine holds connections of another")
        first.close()

    def test_an_engine_that_is_disposed_of_in_each_loop(self, database_url: str) -> None:
        engine = create_async_engine(database_url)
        runner = WorkflowRunner(engine)

        async def once() -> str:
            status = (await runner.execute(FLOW)).status.value
            await engine.dispose()
            return status

        assert [asyncio.run(once()) for _ in range(3)] == ["completed"] * 3

    def test_an_engine_without_a_pool(self, database_url: str) -> None:
        runner = WorkflowRunner(create_async_engine(database_url, poolclass=NullPool))
        assert [run_flow(runner) for _ in range(3)] == ["completed"] * 3

    def test_runners_of_several_loops_with_one_engine(self, first: OwnLoop) -> None:
        runner = WorkflowRunner(first.engine)

        async def while_entered() -> str:
            async with runner:
                await runner.execute(FLOW)
                with ThreadPoolExecutor(1) as threads:
                    call = threads.submit(outcome, lambda: run_flow(WorkflowRunner(first.engine)))
                    return await asyncio.wait_for(asyncio.wrap_future(call), TIME_LIMIT)

        assert first.run(while_entered()).startswith("SharingError: db_engine holds connections of another event loop")


class TestForks:
    """The cases are in `forks.py`."""

    def test_a_runner_that_is_not_in_use_works_in_parent_and_child(self, database_url: str) -> None:
        assert forked("unused", database_url) == ["completed", "completed", "child 0", "completed"]

    def test_a_runner_that_is_entered_is_refused_in_the_child(self, database_url: str) -> None:
        first, second, *others = forked("entered", database_url)
        assert first.startswith("SharingError: this runner was in use when its process forked")
        assert "'spawn'" in first
        assert first == second
        assert others == ["child 0", "completed"]

    def test_a_store_that_is_open_is_refused_in_the_child(self, database_url: str) -> None:
        *found, child = forked("opened", database_url)
        assert len(found) == 2
        assert all(each.startswith("SharingError: the store was opened by another process") for each in found)
        assert child == "child 0"

    @pytest.mark.parametrize("case", ["pooled", "pinged", "borrowed"])
    def test_connections_in_an_engine_s_pool_are_refused_in_the_child(self, database_url: str, case: str) -> None:
        *found, child, parent = forked(case, database_url)
        assert len(found) == 2
        assert all(each.startswith("SharingError: db_engine") for each in found)
        assert (child, parent) == ("child 0", "completed")


def forked(case: str, url: str) -> list[str]:
    """The output of the program."""
    command = [sys.executable, "-m", "tests.workflows.forks", case, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
