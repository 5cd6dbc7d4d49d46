"""Random workflows around a map, random faults, and the invariants of each run.

A seed determines a world: a workflow, the behaviour of its handlers, and the fault in each session that executes or
resumes its one run. A world uses virtual time and a store in memory.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import anyio

from spine_async import (
    ErrorPolicy,
    LeaseLostError,
    RetryPolicy,
    RunBusyError,
    RunNotFoundError,
    Step,
    StepError,
    StepResult,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowResult,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async._model.run_change import RunChange
from spine_async._model.run_row import StoredRun
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore
from spine_async.testing import FaultInjectingStore, VirtualClock
from spine_async.testing.faults import Method

RUN = "r"
_QUICKLY = RetryPolicy(max_attempts=3, initial_delay=0.05)
_WHATEVER = RetryPolicy(max_attempts=2, initial_delay=0.01, retryable_errors=("TRANSIENT", "TIMEOUT", "INTERNAL"))
_FAULTS = ("fail_before", "fail_after", "fail_often")
_TROUBLES = ("none", *_FAULTS, "stop", "cancel", "cancel", "scope", "drain", "read_fails")


class Watched(MemoryRunStore):
    """Records the paths of all visits that were ever stored."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: set[str] = set()

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        outcomes = await super().commit(changes)
        for change, outcome in zip(changes, outcomes, strict=True):
            if outcome is CommitOutcome.COMMITTED:
                self.paths.update(visit.path for visit in change.visits)
        return outcomes


class Slow(Watched):
    """Delays each commit, before and after it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.delay = 0.0

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        if not self.delay:
            return await super().commit(changes)
        await asyncio.sleep(self.delay)
        outcomes = await super().commit(changes)
        await asyncio.sleep(self.delay / 2)
        return outcomes


class World:
    """Executes one run under random faults.

    Attributes:
        problems: Violated invariants, in words.
    """

    def __init__(self, seed: int) -> None:
        self.problems: list[str] = []
        self._seed = seed
        self._draw = random.Random(seed)
        self._store = Slow()
        self._completed: set[str] = set()
        self._stopped: set[str] = set()
        self._fails = self._draw.choice([0, 0, 0.1, 0.3])
        self._is_transient = self._draw.choice([0, 0.3])
        self._is_late = self._draw.choice([0, 0, 0.15])
        self._stops = self._draw.choice([0, 0, 0, 0.02])
        self._workflow = self._made_workflow()

    async def live(self) -> str | None:
        """Execute the run, and resume it until it completes or fails repeatedly; returns its last status."""
        state: StoredRun | None = None
        for number in range(40):
            is_calm = number > 6 or self._draw.random() < 0.2
            result, state = await self._session(is_calm=is_calm)
            has_failed = is_calm and result is not None and result.status == "failed" and number > 8
            if self.problems or has_failed or (state is not None and state.status == "completed"):
                break
        else:
            self.problems.append("the run did not end")
        return state.status if state is not None else None

    def _chance(self, *what: object) -> float:
        """A random number from 0 to 1 that is the same for the same arguments."""
        return random.Random(repr((self._seed, *what))).random()

    def _handler(self, *, has_timeout: bool) -> Any:
        async def handler(context: WorkflowContext, config: dict[str, Any]) -> StepResult | dict[str, Any]:
            path = str(context.idempotency_key).removeprefix(f"{RUN}/")
            if context.attempt == 1:
                self._begun(path)
            pause = self._chance(path, "pause")
            if pause >= 0.3:
                await asyncio.sleep(pause * 0.1 if pause >= 0.5 else 0)
            if has_timeout and context.attempt == 1 and self._chance(path, "late") < self._is_late:
                with suppress(*[asyncio.CancelledError] if self._chance(path, "stubborn") < 0.5 else []):
                    await asyncio.sleep(100)
            if context.attempt == 1 and self._chance(path, "transient") < self._is_transient:
                raise StepError("once more", category="TRANSIENT")
            if self._chance(path, "fails") < self._fails:
                raise ValueError(path)
            if self._chance(path, "stops") < self._stops and path not in self._stopped:
                self._stopped.add(path)
                return StepResult.stop("enough", {"path": path})
            self._completed.add(path)
            return {"path": path}

        return handler

    def _begun(self, path: str) -> None:
        if path in self._store.paths:
            self.problems.append(f"stored, and begun again: {path}")
        if path in self._completed:
            self.problems.append(f"begun twice without an interruption: {path}")

    def _step(self, name: str) -> Step:
        timeout = self._draw.choice([None, 1.0, 1.0])
        return Step.lambda_(
            name,
            self._handler(has_timeout=timeout is not None),
            timeout=timeout or 200,
            retry=_QUICKLY if self._draw.random() < 0.7 else None,
            on_error=self._draw.choice([ErrorPolicy.STOP, ErrorPolicy.STOP, ErrorPolicy.CONTINUE]),
            checkpoint=self._draw.choice([None, None, False, True]),
        )

    def _iterator(self, depth: int) -> Workflow:
        steps = [self._step("one")]
        if depth == 0 and self._draw.random() < 0.5:
            return Workflow(steps=steps)
        if self._draw.random() < 0.3:
            steps.append(Step.wait("nap", self._draw.choice([0, 0.03])))
        steps.append(self._step("two"))
        if depth > 0:
            steps.insert(self._draw.randrange(len(steps) + 1), self._map("inner", depth - 1))
        elif self._draw.random() < 0.3:
            steps.insert(1, Step.choice("choice", lambda context: False, "two"))
        return Workflow(steps=steps)

    def _map(self, name: str, depth: int) -> Step:
        count = self._draw.choice([0, 1, 3, 6] if name == "inner" else [1, 3, 8, 20] if depth else [1, 5, 20, 60])
        return Step.map(
            name,
            items=self._items(count),
            iterator=self._iterator(depth),
            max_concurrency=self._draw.choice([1, 2, 3, 10]),
            tolerated_failures=self._draw.choice([0, 2, 1.0, 1000]),
            collect=self._draw.choice([True, True, False]),
            on_error=self._draw.choice([ErrorPolicy.STOP, ErrorPolicy.CONTINUE]),
            retry=_WHATEVER if self._draw.random() < 0.4 else None,
            timeout=self._draw.choice([None, None, 0.7, 5]),
            checkpoint=self._draw.choice([None, None, False]),
        )

    def _items(self, count: int) -> Any:
        async def stream() -> AsyncIterator[int]:
            for index in range(count):
                if index % 3 == 0:
                    await asyncio.sleep(0.001)
                yield index

        kinds = [lambda context: range(count), lambda context: (index for index in range(count)), lambda _: stream()]
        return self._draw.choice(kinds)

    def _made_workflow(self) -> Workflow:
        depth = self._draw.choice([0, 0, 1, 1, 2])
        return Workflow("w", [self._step("before"), self._map("m", depth), self._step("after")])

    def _runner(self, store: FaultInjectingStore, *, is_calm: bool) -> WorkflowRunner:
        limit = self._draw.choice([0.05, 0.3, 1]) if not is_calm and self._draw.random() < 0.2 else None
        config = WorkflowRunnerConfig(
            drain_timeout=self._draw.choice([0, 0.05, 10]),
            cancel_grace=2,
            checkpoint_every_step=self._draw.random() < 0.75,
            max_claims=1000,
            max_concurrent_steps=self._draw.choice([None, None, 2]),
            workflow_timeout=limit,
        )
        runner = WorkflowRunner(store=store, clock=VirtualClock(), config=config)
        if self._draw.random() < 0.2:
            # anyio cancels a task that waits for a commit in each turn of the loop, so virtual time would stand still.
            is_task = not self._store.delay and self._draw.random() < 0.3
            runner.middleware(_through_a_task if is_task else _through_a_scope)
        return runner

    async def _session(self, *, is_calm: bool) -> tuple[WorkflowResult | None, StoredRun | None]:
        trouble = "none" if is_calm else self._draw.choice(_TROUBLES)
        store = FaultInjectingStore(self._store)
        self._plan(store, trouble)
        self._store.delay = self._draw.choice([0, 0, 0.01, 0.05])
        self._completed.clear()
        result = None
        try:
            result = await self._executed(self._runner(store, is_calm=is_calm), trouble)
        except (asyncio.CancelledError, RunNotFoundError):
            pass
        except RunBusyError:
            self._store._runs[RUN].lease_end = 0.0  # as if its time had passed
        except (StoreUnavailableError, LeaseLostError) as exc:
            if trouble not in {*_FAULTS, "read_fails"}:
                self.problems.append(f"{trouble}: {exc!r}")
        await self._tasks_end()
        stored = await self._store.load(RUN)
        if result is not None and (stored is None or not _is_stored_as(result, stored)):
            self.problems.append(f"{trouble}: the result is {result.status}, {stored and stored.status} is stored")
        await self._check(result)
        return result, stored

    def _plan(self, store: FaultInjectingStore, trouble: str) -> None:
        call = self._draw.randrange(1, 15)
        if trouble == "fail_often":
            for later in range(self._draw.choice([2, 3, 50])):
                store.fail("commit", call=call + later, moment=self._draw.choice(["before", "before", "after"]))
        elif trouble == "fail_before":
            store.fail("commit", call=call)
        elif trouble == "fail_after":
            store.fail("commit", call=call, moment="after")
        elif trouble == "read_fails":
            method: Method = self._draw.choice(["visits", "visits", "claim", "load", "create"])
            store.fail(method, call=self._draw.choice([1, 2]), moment=self._draw.choice(["before", "after"]))

    async def _executed(self, runner: WorkflowRunner, trouble: str) -> WorkflowResult | None:
        at = self._draw.choice([0, 0.001, 0.02, 0.1, 0.3, 1.0]) * self._draw.random()
        is_new = await self._store.load(RUN) is None
        work = runner.execute(self._workflow, run_id=RUN) if is_new else runner.resume(RUN, workflow=self._workflow)
        if trouble == "scope":
            with anyio.move_on_after(at):
                return await work
            return None
        task = asyncio.create_task(work)
        if trouble == "drain":
            async with runner:
                await asyncio.sleep(at)
        elif trouble == "cancel":
            await asyncio.sleep(at)
            task.cancel()
        elif trouble == "stop":
            await asyncio.sleep(at)
            with suppress(RunNotFoundError):
                await runner.stop(RUN, "enough")
        return await task

    async def _tasks_end(self) -> None:
        for _ in range(200):
            if len(asyncio.all_tasks()) == 1:
                return
            await asyncio.sleep(0.5)
        self.problems.append("tasks are left")

    async def _check(self, result: WorkflowResult | None) -> None:
        events = await self._store.events(RUN, 0, 1_000_000)
        if [each.seq for each in events] != [*range(1, len(events) + 1)]:
            self.problems.append("the numbers of events have gaps")
        for kind in ("map_item_completed", "step_completed"):
            counted = Counter(each.path for each in events if each.event_type == kind)
            self.problems.extend(f"{kind} twice: {path}" for path, times in counted.items() if times > 1)
        rows = (
            Counter(row.path for row in self._store._runs[RUN].visits) if RUN in self._store._runs else Counter[str]()
        )
        self.problems.extend(f"stored twice: {path}" for path, times in rows.items() if times > 1)
        output: Any = result.context.get_output("m") if result is not None and result.status == "completed" else None
        if output is not None and output["results"] is not None:
            lost = {each["index"] for each in output["errors"]}
            if output["succeeded"] + output["failed"] != len(output["results"]):
                self.problems.append("the map's counts are wrong")
            for index in set(range(len(output["results"]))) - lost:
                if not any(path.startswith(f"m[{index}]/") for path in rows):
                    self.problems.append(f"item {index} counts as done and has no row")


def _is_stored_as(result: WorkflowResult, stored: StoredRun) -> bool:
    """Whether the result tells what is stored; after a shutdown the run is due, and only its callers have an end."""
    if result.stop_reason != "shutdown":
        return stored.status == result.status
    is_due = stored.owner is None and stored.due_at is not None
    return (result.status, is_due) == ("stopped", True) and stored.status in {"pending", "waiting"}


async def _through_a_task(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    return await asyncio.create_task(next_fn(step, context))


async def _through_a_scope(step: Step, context: WorkflowContext, next_fn: Any) -> Any:
    with anyio.CancelScope():
        return await next_fn(step, context)
