"""The caller of a run is cancelled at each await in turn: nothing leaks, and the run is recorded and can be resumed."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import anyio
import psycopg
import pytest
from sqlalchemy.engine import make_url

from spine_async import RunNotFoundError, RunRecord, WorkflowResult, WorkflowRunner, WorkflowRunnerConfig
from spine_async.ports import RunStore
from spine_async.storage import MemoryRunStore, SqlRunStore
from tests.chaos.checks import History, Reader, Stored, check_completed, read_memory
from tests.chaos.counting import AwaitCounter
from tests.chaos.diary import ListDiary
from tests.chaos.failpoints import Points, WatchedStore
from tests.chaos.size import draws, report, size
from tests.chaos.stories import Story, memory_of
from tests.servers.postgres import OTHER_CLIENTS

HOW = ("scope", "native")


class Theatre:
    """Executes each run on its own event loop, and checks that the loop has no tasks left."""

    def __init__(self, store: Callable[[], RunStore], look: Callable[[], Stored]) -> None:
        self._store = store
        self._look = look
        self.diary = ListDiary()
        self.history = History()

    def play(
        self, run: str, how: str = "execute", chosen: int = 0
    ) -> tuple[WorkflowResult | None, RunRecord | None, int]:
        """Execute the run, cancelled at the chosen await; returns its result, its record and the number of awaits."""
        threads = set(threading.enumerate())
        with asyncio.Runner() as looping:
            counter = AwaitCounter(chosen)
            counter.install(looping.get_loop())
            outcome = looping.run(self._play(run, how, counter))
        self._check_threads(run, threads)
        self.history.take(self.diary.entries())
        self.history.look(self._look())
        return (*outcome, counter.count)

    async def _play(self, run: str, how: str, counter: AwaitCounter) -> tuple[WorkflowResult | None, RunRecord | None]:
        store = WatchedStore(self._store(), self.diary, Points(0, lambda name: None))
        workflow, dispatcher = Story(self.diary).workflow("short")
        config = WorkflowRunnerConfig(trace_enabled=False, cancel_grace=30)
        runner = WorkflowRunner(store=store, dispatcher=dispatcher, config=config)
        result = await self._cancelled(runner, workflow, run, how, counter)
        counter.disarm()
        assert await only_task_left(), f"tasks were left: {asyncio.all_tasks()}"
        try:
            return result, await runner.get_run(run)
        except RunNotFoundError:
            return result, None

    async def _cancelled(
        self, runner: WorkflowRunner, workflow: Any, run: str, how: str, counter: AwaitCounter
    ) -> WorkflowResult | None:
        result = None
        scope = anyio.CancelScope()

        async def execute() -> None:
            nonlocal result
            counter.arm(scope.cancel if how == "scope" else task.cancel)
            with scope:
                if how == "resume":
                    result = await runner.resume(run, workflow=workflow)
                else:
                    result = await runner.execute(workflow, params={"day": 1}, run_id=run)

        task = asyncio.get_running_loop().create_task(execute())
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None, task.exception()
        assert result is not None or counter.count >= counter.chosen > 0
        return result

    def _check_threads(self, run: str, before: set[threading.Thread]) -> None:
        for thread in set(threading.enumerate()) - before:
            thread.join(5)
            assert not thread.is_alive(), f"thread {thread.name} was left by {run}"


async def only_task_left() -> bool:
    """Whether all other tasks end without help, in a bounded number of turns."""
    for _ in range(200):
        if len(asyncio.all_tasks()) == 1:
            return True
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(others, timeout=2)
    return len(asyncio.all_tasks()) == 1


def every(theatre: Theatre, how: str, stride: int, begin: int) -> tuple[int, dict[str, int]]:
    """Cancel at each `stride`-th await; returns the number of awaits, and the number of runs by state."""
    wanted, _, count = theatre.play("undisturbed")
    assert wanted is not None
    states: dict[str, int] = {}
    for chosen in range(begin, count + 1, stride):
        run = f"{how}{chosen}"
        result, record, _ = theatre.play(run, how, chosen)
        state = record.status.value if record is not None else "not accepted"
        states[state] = states.get(state, 0) + 1
        if record is not None and record.status != "completed":
            assert (record.status, record.stop_reason) == ("stopped", "cancelled"), (run, record)
        assert result is None or record is not None
        again, _, _ = theatre.play(run, "resume" if state == "stopped" else "execute")
        assert again is not None
        assert memory_of(again.context) == memory_of(wanted.context)
        check_completed(theatre._look(), [run])
    return count, states


@pytest.fixture
def _no_garbage() -> Iterator[None]:
    yield
    gc.collect()  # reports coroutines that were never awaited; warnings are errors


@pytest.mark.parametrize("how", HOW)
@pytest.mark.usefixtures("_no_garbage")
def test_in_memory(how: str) -> None:
    store = MemoryRunStore()
    count, states = every(Theatre(lambda: store, lambda: read_memory(store)), how, 1, 1)
    report(f"every await[memory, {how}]", n=count, left=states)


@pytest.mark.slow
@pytest.mark.sample(every=2)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.usefixtures("_no_garbage")
def test_on_a_database(empty_database_url: str, how: str) -> None:
    reader = Reader(empty_database_url)
    theatre = Theatre(lambda: SqlRunStore.from_url(empty_database_url), reader.read)
    stride = size(17, 1)
    count, states = every(theatre, how, stride, 1 + draws(how).randrange(stride))
    assert not open_transactions(empty_database_url)
    report(f"every await[{empty_database_url.partition('+')[0]}, {how}]", n=count // stride, of=count, left=states)
    reader.close()


def open_transactions(empty_database_url: str) -> list[Any]:
    """Connections of others that are still open or have an open transaction."""
    url = make_url(empty_database_url)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database), timeout=0, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")  # raises if another connection has a transaction
            connection.execute("ROLLBACK")
        return []
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        return connection.execute(
            f"SELECT pid, state, query {OTHER_CLIENTS} "
            "AND (state LIKE 'idle in transaction%' OR application_name <> '')"
        ).fetchall()
