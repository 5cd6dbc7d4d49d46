"""A worker in a process of its own: `python -m benchmarks.contestants.spine_worker TASK`.

For each line on its standard input the process prints its use of the processor and of memory. After the line `begin` it
also works on the runs of W16. It works until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import cast

from benchmarks.child import rss_mb
from benchmarks.contestants.spine import chain, make_config, warm_up
from benchmarks.task import Task
from spine_async import Step, Workflow, WorkflowContext, WorkflowRunner


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far.

    Attributes:
        at: Time of the reading, in seconds of `time.perf_counter`.
        cpu: Seconds of processor time.
        rss_mb: Current memory in MB.
    """

    at: float
    cpu: float
    rss_mb: float

    @classmethod
    def now(cls) -> Usage:
        """The usage of this process."""
        return cls(time.perf_counter(), time.process_time(), rss_mb())

    def percent_since(self, earlier: Usage) -> float:
        """Processor time since an earlier reading in percent of one core."""
        return 100 * (self.cpu - earlier.cpu) / (self.at - earlier.at)


class WorkerProcess:
    """The worker, as seen by the process that started it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def usage(self) -> Usage:
        """What the worker has used so far."""
        await self._send(b"\n")
        return Usage(**json.loads(await self._line()))

    async def begin(self) -> None:
        """Work on the runs of W16 from now on."""
        await self._send(b"begin\n")
        await self._line()

    async def idle_percent(self, seconds: float) -> float:
        """Processor time of the worker within the next seconds, in percent of one core."""
        before = await self.usage()
        await asyncio.sleep(seconds)
        return (await self.usage()).percent_since(before)

    async def end(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        await self._process.stdin.drain()

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker process has ended")
        return line


@asynccontextmanager
async def worker_process(task: Task) -> AsyncIterator[WorkerProcess]:
    """A worker process that has started to work, until the end of the block."""
    module, given = "benchmarks.contestants.spine_worker", json.dumps(asdict(task))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, given, stdin=PIPE, stdout=PIPE)
    worker = WorkerProcess(process)
    try:
        await worker.usage()
        yield worker
    finally:
        await worker.end()


# On Linux, macOS and Windows, `perf_counter` has the same origin in all processes of a host.
async def seconds_since_sent(context: WorkflowContext, config: object) -> dict[str, float]:
    """A step that returns the time since the run was sent."""
    return {"seconds": time.perf_counter() - cast("float", context.params["sent"])}


async def seconds_since_approved(context: WorkflowContext, config: object) -> dict[str, float]:
    """A step that returns the time since the signal was sent."""
    sent = cast("Mapping[str, float]", context.get_output("approve", "value"))["sent"]
    return {"seconds": time.perf_counter() - sent}


async def nothing(context: WorkflowContext, config: object) -> None:
    """A step that does nothing."""


QUEUED = Workflow("queued", [Step.lambda_("step", nothing)])


async def emit_values(context: WorkflowContext, config: object) -> dict[str, float]:
    """A step that emits the time, `count` times with pauses of `pause_ms`; without pauses it flushes now and then."""
    count, pause = cast("int", context.params["count"]), cast("float", context.params["pause_ms"]) / 1000
    began = time.perf_counter()
    for number in range(count):
        if pause:
            await asyncio.sleep(pause)
        elif number % 1000 == 999:
            await context.flush()
        context.emit("value", {"sent": time.perf_counter()})
    await context.flush()
    return {"seconds": time.perf_counter() - began}


PICKED_UP = Workflow("picked_up", [Step.lambda_("first", seconds_since_sent)])
PARKED = Workflow("parked", [Step.wait_for_signal("approve"), Step.lambda_("next", seconds_since_approved)])

EMITS = Workflow("emits", [Step.lambda_("emit", emit_values)])


SCALED = chain("scaled", 5, nothing)
CHILD = Workflow("scaled_child", [Step.lambda_("step", nothing)])
_item = Workflow(steps=[Step.workflow("child", CHILD, {}, queue="default")])
FANS_OUT = Workflow(
    "fans_out",
    [
        Step.map(
            "each",
            items=lambda context: range(cast("int", context.params["items"])),
            iterator=_item,
            max_concurrency=200,
            collect=False,
        )
    ],
)


async def work(task: Task) -> None:
    """Work until the standard input ends."""
    async with WorkflowRunner(config=make_config(task), workflows=[PICKED_UP, PARKED, QUEUED, EMITS]) as runner:
        await warm_up(runner)
        while line := await asyncio.to_thread(sys.stdin.readline):
            for each in (SCALED, CHILD, FANS_OUT) if line.strip() == "begin" else ():
                runner.register(each)
            print(json.dumps(asdict(Usage.now())), flush=True)


if __name__ == "__main__":
    asyncio.run(work(Task(**json.loads(sys.argv[1]))))
