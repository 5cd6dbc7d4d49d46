"""The warm process: imports all modules, opens no file or socket, and forks a child for each line that it reads.

A line is a JSON job; the answer is the child's process id. The answer to `{"wait": pid, "seconds": s, "kill_after": s}`
is how the child ended. `nursery.py` starts this process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy.ext.asyncio import AsyncTransaction

from spine_async import SpineError, WorkflowRunner, WorkflowRunnerConfig
from spine_async.ports import RunStore
from spine_async.storage import FileRunStore, RedisRunStore, SqlRunStore
from spine_async.storage.file import log as file_log
from spine_async.storage.redis import server as redis_server
from spine_async.storage.sql.postgres import changes as postgres_changes
from spine_async.storage.sql.postgres import step_transactions as postgres_transactions
from spine_async.storage.sql.sqlite import jobs as sqlite_jobs
from tests.chaos.diary import FileDiary
from tests.chaos.failpoints import Points, WatchedStore, die
from tests.chaos.services import Service
from tests.chaos.stories import Story, memory_of
from tests.crash.warm import warm_up

PATIENCE = 60.0


class Child:
    """Executes the runs of a job, and dies at the failpoint that the job names."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.diary = FileDiary(job["diary"])
        self.points = Points(job.get("die_at", 0), self._act)
        self.store = WatchedStore(store_of(job["url"]), self.diary, self.points)
        self.writing = threading.RLock()

    def _act(self, name: str) -> None:
        if self.job.get("act", "die") == "die":
            die(self.diary)(name)
        else:
            # A process that is stopped inside of a transaction keeps the lock of the SQLite file: nobody could write.
            with self.writing:
                self.diary.write("died", "", at=f"stopped at {name}")
                os.kill(os.getpid(), signal.SIGSTOP)

    async def live(self) -> None:
        """Execute the runs and write their results to the diary."""
        workflow, dispatcher = Story(self.diary, self.points.reach, self.points.hit).workflow(self.job["story"])
        config = WorkflowRunnerConfig(
            lease_ttl=self.job.get("ttl", 30.0), max_claims=1_000_000, trace_enabled=False, drain_timeout=1
        )
        runner = WorkflowRunner(store=self.store, dispatcher=dispatcher, config=config, work=False)
        async with runner, anyio.create_task_group() as tasks:
            limiter = anyio.CapacityLimiter(20)
            for run in self.job["runs"]:
                tasks.start_soon(self._execute, runner, workflow, run, limiter)
        if self.job.get("count"):
            self.diary.write("counted", "", points=self.points.names)

    async def _execute(self, runner: WorkflowRunner, workflow: Any, run: str, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            try:
                result = await runner.execute(workflow, params={"day": 1}, run_id=run)
            except SpineError as exc:
                self.diary.write("raised", run, error=type(exc).__name__, text=str(exc))
            else:
                self.diary.write("finished", run, status=result.status.value, memory=memory_of(result.context))


def store_of(url: str) -> RunStore:
    """The store at a URL of a database or a Redis server, or at `file:` with a folder."""
    kind, _, folder = url.partition(":")
    if kind == "redis":
        return RedisRunStore(url)
    return FileRunStore(folder) if kind == "file" else SqlRunStore.from_url(url)


def trace_requests(points: Points) -> None:
    """Add a failpoint before and after each request to a Redis server: after it, its reply is lost."""
    send = redis_server._send

    async def traced(client: Any, requests: Any) -> Any:
        points.hit("before a request")
        answers = await send(client, requests)
        points.hit("after a request")
        return answers

    redis_server._send = traced


def trace_writes(points: Points) -> None:
    """Add a failpoint before, within and after each write to a file of the file store, and before each sync."""
    write, sync = file_log._write, os.fsync

    def traced_write(descriptor: int, data: bytes) -> None:
        points.hit("before a write")
        half = len(data) // 2
        write(descriptor, data[:half])
        points.hit("within a write")
        write(descriptor, data[half:])
        points.hit("after a write")

    def traced_sync(descriptor: int) -> None:
        points.hit("before a sync")
        sync(descriptor)

    file_log._write = traced_write
    file_log.os.fsync = traced_sync  # type: ignore[attr-defined]


def trace(points: Points, url: str) -> None:
    """Add the failpoints within the store at this URL."""
    if url.startswith("file:"):
        trace_writes(points)
    elif url.startswith("redis:"):
        trace_requests(points)
    else:
        trace_statements(points)
        trace_commits(points)


def trace_statements(points: Points) -> None:
    """Add a failpoint before each statement that SQLite executes in a transaction."""
    in_transaction = sqlite_jobs.in_transaction

    def traced(connection: Any, work: Any) -> Any:
        connection.set_trace_callback(lambda statement: points.hit(f"sqlite {' '.join(statement.split()[:2])}"))
        try:
            return in_transaction(connection, work)
        finally:
            connection.set_trace_callback(None)

    sqlite_jobs.in_transaction = traced


def trace_commits(points: Points) -> None:
    """Add a failpoint before and after the last statement of a transaction of a step on PostgreSQL, and its commit."""
    write, commit = postgres_changes.write_within, AsyncTransaction.commit

    async def traced_write(driver: Any, change: Any) -> bool:
        points.hit("fence before")
        is_written = await write(driver, change)
        points.hit("fence after")
        return is_written

    async def traced_commit(transaction: AsyncTransaction) -> None:
        points.hit("COMMIT before")
        await commit(transaction)
        points.hit("COMMIT after")

    vars(postgres_transactions)["write_within"] = traced_write
    AsyncTransaction.commit = traced_commit  # type: ignore[method-assign,assignment]


def hold_while_writing(lock: threading.RLock) -> None:
    """Hold the lock during each transaction of SQLite."""
    in_transaction = sqlite_jobs.in_transaction

    def held(connection: Any, work: Any) -> Any:
        with lock:
            return in_transaction(connection, work)

    sqlite_jobs.in_transaction = held


def run_child(job: dict[str, Any]) -> None:
    """Run the child, from the fork to its exit."""
    code = 1
    try:
        if "log" in job:
            logging.basicConfig(filename=job["log"], level=logging.DEBUG)
        child = Child(job)
        if job.get("act") == "sleep":
            hold_while_writing(child.writing)
        if job.get("traces"):
            trace(child.points, job["url"])
        live = Service(job, child.store, child.diary, child.points).live if "produce" in job else child.live
        anyio.run(live, backend_options={"use_uvloop": False})
        code = 0
    except BaseException:
        import traceback  # noqa: PLC0415 (only a child that fails needs it)

        with Path(job["diary"] + ".errors").open("a") as errors:
            traceback.print_exc(file=errors)
    finally:
        os._exit(code)


def fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        os.close(0)
        run_child(job)
    return pid


def wait_for(pid: int, seconds: float, kill_after: float | None) -> int | None:
    """Exit code of the child (negative: the signal), or None if it was killed because it did not end in time."""
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        lived = time.monotonic() - began
        if kill_after is not None and lived >= kill_after:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if lived > seconds:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.0005)


def main() -> None:
    warm_up()
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer: object = wait_for(asked["wait"], asked.get("seconds", PATIENCE), asked.get("kill_after"))
        else:
            answer = fork(asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
