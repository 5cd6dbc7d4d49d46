"""The warm process: imports all modules and forks a service for each line that it reads.

A line is a JSON job; the answer is the process id. The answer to `{"wait": pid}` is the exit code, or minus the signal.
`services.py` starts this process. A service enters a runner, and answers the questions of the test on a Unix socket.
SIGTERM lets it leave the runner, as the servers of web frameworks do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from spine_async import Enqueued, Queue, RateLimit, Schedule, WorkflowResult, WorkflowRunner, WorkflowRunnerConfig
from tests.crash.warm import warm_up
from tests.service.file_clock import FileClock
from tests.service.flows import Flows


def shown(result: WorkflowResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "status": result.status.value,
        "stop_reason": result.stop_reason,
        "error": result.error,
        "completed_steps": list(result.completed_steps),
        "outputs": result.context.to_dict()["outputs"],
    }


def _queue(*, rate: tuple[int, float] | None = None, **limits: Any) -> Queue:
    return Queue(**limits, rate=RateLimit(*rate) if rate is not None else None)


class Service:
    """One entered runner, and the tasks that answer the questions of the test."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._flows = Flows(job["folder"], job.get("version", 1))
        config = WorkflowRunnerConfig(database_url=job["url"], trace_enabled=False, **job.get("config", {}))
        queues = [Queue(each) if isinstance(each, str) else _queue(**each) for each in job.get("queues", ())]
        flows = self._flows.by_name.values() if job.get("knows", True) else ()
        self._runner = WorkflowRunner(
            config=config,
            workflows=flows,
            work=job["work"],
            queues=queues,
            schedules=[Schedule(workflow="brief", overlap="allow", **each) for each in job.get("schedules", ())],
            clock=FileClock(job["clock"]) if "clock" in job else None,
            dispatcher=self._flows.dispatcher,
        )
        self._flows.runner = self._runner
        self._socket = job["socket"]
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def live(self) -> None:
        leaving = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leaving.set)
        self._reader, self._writer = await asyncio.open_unix_connection(self._socket)
        async with self._runner:
            self._say(entered=True)
            listening = asyncio.create_task(self._listen())
            await leaving.wait()
            self._say(leaving=True)
        self._say(left=True)
        listening.cancel()
        await asyncio.gather(*self._tasks.values(), listening, return_exceptions=True)
        await self._writer.drain()

    async def _listen(self) -> None:
        while line := await self._reader.readline():
            question = json.loads(line)
            number, what = question.pop("number"), question.pop("do")
            if what == "cancel":
                self._tasks[question["task"]].cancel()
            else:
                self._tasks[number] = asyncio.create_task(self._answer(number, getattr(self, f"do_{what}"), question))

    async def _answer(self, number: int, act: Callable[..., Awaitable[object]], arguments: dict[str, Any]) -> None:
        try:
            self._say(number=number, answer=await act(**arguments))
        except asyncio.CancelledError:
            self._say(number=number, error="CancelledError", text="")
        except Exception as exc:
            self._say(number=number, error=type(exc).__name__, text=str(exc))

    def _say(self, **words: object) -> None:
        self._writer.write(json.dumps(words).encode() + b"\n")

    async def do_execute(self, workflow: str, **options: Any) -> object:
        return shown(await self._runner.execute(self._flows.by_name[workflow], **options))

    async def do_start(self, workflow: str, **options: Any) -> object:
        return (await self._runner.start(self._flows.by_name[workflow], **options)).run_id

    async def do_enqueue(self, workflow: str, **options: Any) -> object:
        return (await self._runner.enqueue(workflow, **options)).run_id

    async def do_enqueue_version(self, workflow: str, ids: list[str]) -> object:
        """Enqueue runs of the version that this service knows."""
        runs = [Enqueued(run_id=run_id) for run_id in ids]
        return [handle.run_id for handle in await self._runner.enqueue_many(self._flows.by_name[workflow], runs)]

    async def do_enqueue_many(self, workflow: str, ids: list[str]) -> object:
        runs = [Enqueued(run_id=run_id) for run_id in ids]
        return [handle.run_id for handle in await self._runner.enqueue_many(workflow, runs)]

    async def do_result(self, run_id: str, timeout: float | None = None) -> object:
        return shown(await self._runner.handle(run_id).result(timeout))

    async def do_resume(self, run_id: str) -> object:
        return shown(await self._runner.resume(run_id))

    async def do_stop(self, run_id: str, reason: str | None = None) -> object:
        return await self._runner.handle(run_id).stop(reason)


def live(job: dict[str, Any]) -> None:
    """Live from the fork to the exit. A thread that was left behind does not outlive the service."""
    code = 1
    logging.basicConfig(filename=Path(job["folder"], "log"))
    try:
        asyncio.run(Service(job).live())
        code = 0
    except BaseException:
        with Path(job["folder"], "errors").open("a") as errors:
            traceback.print_exc(file=errors)
    finally:
        os._exit(code)


def main() -> None:
    warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os.close(0)
            live(job)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
