"""PostgreSQL ends connections, loses replies or restarts during runs: nothing is lost, stored twice or leaked."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import anyio
import pytest

from spine_async import StoreUnavailableError, WorkflowResult, WorkflowRunner, WorkflowRunnerConfig
from spine_async.storage import SqlRunStore
from tests.chaos.checks import History, Reader, check_completed, require
from tests.chaos.diary import ListDiary
from tests.chaos.failpoints import Points, WatchedStore
from tests.chaos.size import draws, report, size
from tests.chaos.stories import Story, memory_of
from tests.servers import postgres
from tests.servers.postgres import OTHER_CLIENTS, PostgresServer
from tests.servers.process import _is_alive
from tests.storage.reply_dropper import reply_dropper

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.allow_blocking]

TOGETHER = 4


class Weather:
    """Executes runs on a server with faults.

    Args:
        url: URL of the database itself.
        through: URL that the runner connects to, if it is another one.
    """

    def __init__(self, url: str, through: str | None = None) -> None:
        self.reader = Reader(url)
        self.diary, self.history = ListDiary(), History()
        self.trouble: Callable[[str], None] = lambda name: None
        self._through = through or url

    async def runs(self, names: list[str]) -> list[WorkflowResult]:
        """Execute the runs concurrently until they complete; the store may be unavailable meanwhile."""
        points = _Windy(self)
        store = WatchedStore(SqlRunStore.from_url(self._through), self.diary, points)
        workflow, dispatcher = Story(self.diary, points.reach).workflow("short")
        runner = WorkflowRunner(
            store=store, dispatcher=dispatcher, config=WorkflowRunnerConfig(trace_enabled=False, max_claims=1000)
        )
        results: dict[str, WorkflowResult] = {}

        async def bring_to_end(name: str) -> None:
            with anyio.fail_after(60):
                while name not in results:
                    try:
                        results[name] = await runner.execute(workflow, params={"day": 1}, run_id=name)
                    except StoreUnavailableError:
                        self.unavailable += 1

        self.unavailable = 0
        async with runner, anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(bring_to_end, name)
        return [results[name] for name in names]

    async def check(self, names: list[str]) -> None:
        self.history.take(self.diary.entries())
        stored = self.reader.read()
        self.history.look(stored)
        check_completed(stored, names)
        for _ in range(2_000):
            if not self.reader.rows(f"SELECT pid {OTHER_CLIENTS}"):
                break
            # The server needs time to detect that a client has disconnected, and calls that were in progress when the
            # store was closed need the event loop to discard their connections.
            await anyio.sleep(0.01)
        else:
            require(False, "connections were leaked")

    def terminate(self) -> int:
        return len(self.reader.rows(f"SELECT pg_terminate_backend(pid) {OTHER_CLIENTS}"))


class _Windy(Points):
    def __init__(self, weather: Weather) -> None:
        super().__init__(0, lambda name: None)
        self._weather = weather

    def hit(self, name: str) -> None:
        super().hit(name)
        self._weather.trouble(name)


async def through_all(weather: Weather, is_enough: Callable[[], bool]) -> int:
    """Execute runs until there were enough faults; all end with the same context. Returns the number of runs."""
    (wanted,) = await weather.runs(["undisturbed"])
    count = 0
    while not is_enough():
        names = [f"r{count + number}" for number in range(TOGETHER)]
        for result in await weather.runs(names):
            require(memory_of(result.context) == memory_of(wanted.context), f"{result.run_id} came to something else")
        await weather.check(names)
        weather.reader.forget(names)
        weather.history.forget(names)
        count += TOGETHER
    return count


async def test_connections_are_terminated(fresh_postgres_url: str) -> None:
    weather, wanted, draw = Weather(fresh_postgres_url), size(20, 500), draws("terminated")
    hits: list[int] = []
    began = time.monotonic()

    def trouble(name: str) -> None:
        if draw.random() < 0.06:
            hits.append(weather.terminate())

    await weather.runs(["first"])
    weather.trouble = trouble
    runs = await through_all(weather, lambda: sum(map(bool, hits)) >= wanted)
    report("pg_terminate_backend", n=sum(map(bool, hits)), connections=sum(hits), runs=runs, took=took(began))
    weather.reader.close()


async def test_replies_of_the_server_are_lost(fresh_postgres_url: str) -> None:
    wanted, draw = size(10, 200), draws("lost")
    began = time.monotonic()
    async with reply_dropper(fresh_postgres_url) as (dropper, url):
        weather = Weather(fresh_postgres_url, url.render_as_string(hide_password=False))
        await weather.runs(["first"])

        def trouble(name: str) -> None:
            if name in {"commit before", "create before", "claim before"} and draw.random() < 0.15:
                dropper.drop_next(after=draw.randint(0, 4))

        weather.trouble = trouble
        runs = await through_all(weather, lambda: dropper.dropped >= wanted)
    report("lost answers", n=dropper.dropped, runs=runs, took=took(began))
    weather.reader.close()


@pytest.mark.kills_servers
async def test_the_server_restarts(postgres_to_kill: PostgresServer) -> None:
    wanted, draw = size(1, 10), draws("restarts")
    weather = Weather(postgres.async_url(postgres_to_kill.create_database()))
    restarts = 0
    began = time.monotonic()
    await weather.runs(["first"])
    for number in range(wanted):
        names = [f"r{number}-{each}" for each in range(TOGETHER)]
        left = draw.randint(5, 80)

        def trouble(name: str) -> None:
            nonlocal left, restarts
            left -= 1
            if left == 0:
                weather.reader.close()
                _restart(postgres_to_kill)
                restarts += 1

        weather.trouble = trouble
        await weather.runs(names)
        weather.trouble = lambda name: None
        await weather.check(names)
    assert restarts == wanted
    report("restarts", n=restarts, took=took(began))
    weather.reader.close()


def took(began: float) -> float:
    return round(time.monotonic() - began, 1)


def _restart(server: PostgresServer) -> None:
    """Shut the server down at once, as a crash does."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGQUIT)
    for _ in range(2_000):
        if not _is_alive(server.process.pid):
            break
        time.sleep(0.01)
    server.process.kill()
    server.process.start()
