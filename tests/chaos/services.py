"""A service that is killed: an entered runner that produces runs, signals them, and executes whatever is due."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Mapping
from typing import Any

import anyio

from spine_async import (
    Queue,
    RetryPolicy,
    RunEndedError,
    RunNotFoundError,
    Step,
    StepError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.ports import RunStore
from tests.chaos.diary import FileDiary
from tests.chaos.failpoints import Points
from tests.chaos.stories import Story

NAP = 0.05  # seconds; longer than a run is idle before it is parked
SIGNALS = (1, 2)
SUM = {"signals": list(SIGNALS), "items": [0, 10, 20], "attempt": 2, "child": 7}
"""Output of the last step of each run, whatever happened to its owners."""

WAYS = ("enqueue", "delay", "start", "execute", "queue")
PATIENCE = 40.0


class Flows:
    """A workflow that parks on waits, signals and a retry, and awaits another run; each step writes a diary entry."""

    def __init__(self, diary: FileDiary, points: Points) -> None:
        story = Story(diary, points.reach)
        self._runner: WorkflowRunner | None = None
        self.child = Workflow(
            "child", [story.step("one", lambda context: {}), _nap(), story.step("two", lambda context: {"n": 7})]
        )
        item = Workflow(
            steps=[
                story.step("clean", lambda context: {}),
                _nap(),
                story.step("score", lambda context: {"n": int(str(context.params["item"])) * 10}),
            ]
        )
        retry = RetryPolicy(max_attempts=2, backoff="constant", initial_delay=NAP, jitter=False)
        self.parent = Workflow(
            "parent",
            [
                story.step("fetch", lambda context: {}),
                _nap(),
                Step.wait_for_signal("first", signal="go"),
                story.step("flaky", _second_attempt, retry=retry),
                Step.map("each", items=[0, 1, 2], iterator=item),
                Step.wait_for_signal("second", signal="go"),
                Step.lambda_("await", self._await_child),
                story.step("sum", _sum),
            ],
        )

    def belong_to(self, runner: WorkflowRunner) -> None:
        """Set the runner on which the step `await` executes its child run."""
        self._runner = runner

    async def _await_child(self, context: WorkflowContext, config: Mapping[str, object]) -> Mapping[str, object]:
        assert self._runner is not None
        result = await self._runner.execute(self.child, run_id=child_of(context.run_id))
        result.raise_for_status()
        return result.context.get_output("two")


def child_of(run: str) -> str:
    return f"{run}-child"


def _nap() -> Step:
    return Step.wait("nap", NAP)


def _second_attempt(context: WorkflowContext) -> dict[str, object]:
    if context.attempt == 1:
        raise StepError("not yet", category="TRANSIENT")
    return {"attempt": context.attempt}


def _sum(context: WorkflowContext) -> dict[str, object]:
    results: Any = context.get_output("each", "results")
    return {
        "signals": [context.get_output(step, "value") for step in ("first", "second")],
        "items": [each["n"] for each in results],
        "attempt": context.get_output("flaky", "attempt"),
        "child": context.get_output("await", "n"),
    }


class Service:
    """Lives until it is killed, or leaves its runner on SIGTERM; the last one leaves when all runs have ended.

    Diary: `accepted` when a call has stored a run, `signalled` when a signal is stored, `finished` with the output of
    the last step.
    """

    def __init__(self, job: dict[str, Any], store: RunStore, diary: FileDiary, points: Points) -> None:
        self._job = job
        self._diary = diary
        self._draw = random.Random(job["seed"])
        self._flows = Flows(diary, points)
        config = WorkflowRunnerConfig(
            lease_ttl=30.0, max_claims=1_000_000, trace_enabled=False, drain_timeout=0.05, park_after=0.0
        )
        workflows = [self._flows.parent, self._flows.child]
        self._runner = WorkflowRunner(store=store, config=config, workflows=workflows, queues=[Queue("other")])
        self._flows.belong_to(self._runner)
        self._leaving = asyncio.Event()

    async def live(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leaving.set)
        # The runner is left before its callers end: a caller that is cancelled would stop its run.
        async with anyio.create_task_group() as tasks, self._runner:
            for run in self._job["produce"]:
                tasks.start_soon(self._produce, run, self._draw.choice(WAYS), self._draw.uniform(0, 0.1))
                tasks.start_soon(self._send, run, self._draw.uniform(0, 0.2))
            if self._job["is_last"]:
                for run in self._job["produce"]:
                    await self._finish(run)
                self._leaving.set()
            else:
                await self._leaving.wait()

    async def _produce(self, run: str, way: str, pause: float) -> None:
        await anyio.sleep(pause)
        if way == "execute" and not self._leaving.is_set():  # else it would wait for signals that nobody sends here
            await self._runner.execute(self._flows.parent, run_id=run)
            return
        if way == "start" and not self._leaving.is_set():
            await self._runner.start(self._flows.parent, run_id=run)
        else:
            options: dict[str, dict[str, Any]] = {"delay": {"delay": NAP}, "queue": {"queue": "other"}}
            await self._runner.enqueue(self._flows.parent, run_id=run, **options.get(way, {}))
        self._diary.write("accepted", run)

    async def _send(self, run: str, pause: float) -> None:
        """Send the signals, which another process may have sent before; waits until the run is stored."""
        await anyio.sleep(pause)
        for value in SIGNALS:
            while not self._leaving.is_set():
                try:
                    await self._runner.signal(run, "go", value, idempotency_key=str(value))
                except RunNotFoundError:
                    await anyio.sleep(0.01)
                    continue
                except RunEndedError:
                    return
                self._diary.write("signalled", run, value=value)
                break

    async def _finish(self, run: str) -> None:
        while True:
            try:
                result = await self._runner.handle(run).result(timeout=PATIENCE)
            except RunNotFoundError:
                await anyio.sleep(0.01)
                continue
            break
        memory = result.context.get_output("sum") if result.status == "completed" else str(result)
        self._diary.write("finished", run, status=result.status.value, memory=memory)
