"""Claims due runs of known workflows and executes them: once on request, or as long as the runner is entered."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import anyio

from spine_async._engine.run.release import begin_release
from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.own_claims import is_superseded
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.execution import Execution, ExecutionResult, log_if_failed
from spine_async._engine.service.pace import Pace
from spine_async._engine.service.queue_listing import QueueListing
from spine_async._engine.service.schedule_timer import ScheduleTimer
from spine_async._engine.service.sweeper import Sweeper, ask_store
from spine_async._engine.start.due_run import open_due_run
from spine_async._engine.state.scope import Scope
from spine_async._engine.tasks import (
    CANCELLATION,
    Task,
    mark_retrieved,
    run_shielded,
    spawn,
    wait_any,
    wait_ended,
    wait_shielded,
)
from spine_async._model.due import DueRequest, DueRun, DueRuns, Sweep
from spine_async._model.run_change import Release
from spine_async._model.run_row import DueTime
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import RunError, StoreError

_ROUNDS_PER_SECOND = 40.0  # in the long run, while changes of other processes bring no work
_ROUNDS_AT_ONCE = 8.0  # after a quiet time
_REST = 0.01  # seconds after a round that has claimed a run
_COST_OF_WORK = 0.2  # of a round that has claimed a run; a round that claims nothing costs 1
_MOST_AT_ONCE = 200  # runs of one claim; their leases must not end before all of them have begun

_log = logging.getLogger("spine_async")


class Worker:
    """Finds due runs and executes them.

    Args:
        runtime: What all runs share.
        active_runs: The runs that this runner executes.
        workflows: The known workflows by name; may grow.
        queues: Names of the queues that it works on.
        execute: Executes a run that is open.
        timer: Starts the runs of schedules, or None.
    """

    def __init__(
        self,
        runtime: Runtime,
        active_runs: ActiveRuns,
        workflows: Mapping[str, Workflow],
        queues: Collection[str],
        execute: Callable[[Scope, Execution], Awaitable[WorkflowResult]],
        *,
        timer: ScheduleTimer | None = None,
    ) -> None:
        self._runtime = runtime
        self._active_runs = active_runs
        self._workflows = workflows
        self._queues = frozenset(queues)
        self._listing = QueueListing(runtime, self._queues)
        self._sweeper = Sweeper(runtime, active_runs)
        self._execute = execute
        self._timer = timer
        self._task: Task[None] | None = None
        self._halt = _Halt()
        self._is_busy = False

    def start(self) -> None:
        """Work until `end_with`, unless it works already."""
        if self._task is None:
            self._runtime.parks = True
            self._listing.begin(self._runtime.clock.monotonic())
            if self._timer is not None:
                self._timer.begin()
            self._task = spawn(self._work(self._halt), "spine_async worker")

    async def end_with(self, drain: Awaitable[None]) -> None:
        """Claim no further runs, wait for `drain`, and end the work. Work that starts meanwhile is not affected."""
        task, self._task = self._task, None
        self._halt.is_set, self._halt = True, _Halt()
        self._runtime.parks = False
        try:
            if task is not None:
                self._runtime.changes.notify(Change.WORK)
                await wait_ended(task)  # not cancelled: the runs of a claim that is under way need an executor
        finally:
            await drain

    async def once(self) -> list[WorkflowResult]:
        """Claim the runs that are due now and execute them to their ends; returns their results."""
        results: list[WorkflowResult] = []
        await self._sweeper.sweep()
        running: set[Task[ExecutionResult]] = set()
        while True:
            limit = self._runtime.config.worker_concurrency - len(running)
            # To its end, also if the caller is cancelled: the claimed runs need an executor.
            running |= await run_shielded(self._claim_once(limit, results), "spine_async recover")
            if not running:
                return results
            await wait_any(*running)
            running = {each for each in running if not each.done()}

    async def _claim_once(self, limit: int, results: list[WorkflowResult]) -> set[Task[ExecutionResult]]:
        """Claim runs and execute them in the background; returns the tasks."""
        begun = [self._begin(each, results) for each in await self._claim(limit)]
        return {each.task for each in begun if each.task is not None}

    async def _work(self, halt: _Halt) -> None:
        runtime = self._runtime
        pace = Pace(_ROUNDS_PER_SECOND, _ROUNDS_AT_ONCE, runtime.clock.monotonic())
        async with runtime.changes.listening():
            while not halt.is_set:
                seen = runtime.changes.count(Change.WORK)
                done = await self._round_if_reachable(halt)
                await self._listing.list_if_due(runtime.clock.monotonic())
                if self._timer is not None and not halt.is_set:
                    done.pause = min(done.pause, await self._timer.fire_due())
                if not done.has_more or self._free == 0:
                    if done.has_claimed:
                        await anyio.sleep(_REST)  # the claimed runs are opened first
                    await runtime.changes.wait(Change.WORK, done.pause, seen)
                    delay = pace.delay(runtime.clock.monotonic(), _COST_OF_WORK if done.has_claimed else 1.0)
                    if delay > 0:
                        await anyio.sleep(delay)

    @property
    def _free(self) -> int:
        return max(0, self._runtime.config.worker_concurrency - self._active_runs.used_capacity)

    async def _round_if_reachable(self, halt: _Halt) -> _Round:
        """Do one round, unless the store cannot be reached."""
        done = _Round(self._runtime.config.poll_interval)
        try:
            await self._round(done, halt)
        except StoreError as exc:
            _log.warning("due runs were not claimed; it will be retried: %s", exc)
        except Exception:  # noqa: BLE001 - a worker that ends would execute no further run
            _log.exception("due runs were not claimed; it will be retried")
        if done.room_in is not None:
            done.pause = min(done.pause, done.room_in)
        return done

    async def _round(self, done: _Round, halt: _Halt) -> None:
        """Claim ready runs, make due ones ready, and claim those; sweeps less often while the capacity is used up.

        A new run is ready already, but a run that was sent a signal is not, so neither waits for the other's call.
        """
        sweeping = None if self._is_busy else self._begin_sweep()
        try:
            await self._claim_and_begin(done)
        finally:
            if sweeping is not None:
                await wait_shielded(sweeping)
        self._is_busy = done.has_more
        if self._is_busy and self._runtime.clock.monotonic() - self._sweeper.last_mono < done.pause:
            return
        sweep = sweeping.result() if sweeping is not None else await self._sweeper.sweep()
        if sweep.next_due is not None:
            done.pause = min(done.pause, sweep.next_due)
        if sweep.made_ready and not halt.is_set:
            await self._claim_and_begin(done)

    async def _claim_and_begin(self, done: _Round) -> None:
        """Claim runs for the free capacity and execute them in the background."""
        limit = self._free
        claimed = await self._claim(limit)
        for each in claimed:
            self._begin(each, None)
        done.room_in = claimed.room_in
        done.has_claimed = done.has_claimed or bool(claimed)
        is_full = len(claimed) >= min(limit, _MOST_AT_ONCE)
        done.has_more = bool(claimed) and (is_full or bool(self._runtime.queue_limits))

    def _begin_sweep(self) -> Task[Sweep]:
        sweeping = spawn(self._sweeper.sweep(), "spine_async sweep")
        sweeping.add_done_callback(mark_retrieved)  # a claim that fails meanwhile ends the round
        return sweeping

    async def _claim(self, limit: int) -> DueRuns:
        runtime = self._runtime
        if limit <= 0 or not self._workflows or runtime.is_draining:
            return DueRuns()
        request = DueRequest(
            owner=runtime.owner,
            workflows={name: workflow.version for name, workflow in self._workflows.items()},
            queues=self._queues,
            limits=tuple(runtime.queue_limits.values()),
            limit=min(limit, _MOST_AT_ONCE),
            ttl=runtime.config.lease_ttl,
            at=runtime.clock.now(),
        )
        sent_mono = runtime.clock.monotonic()
        with runtime.own_claims.noted() as later:
            claimed = await ask_store(runtime, runtime.due_runs.claim_due(request), "spine_async claim")
        _measure_claim(runtime, claimed, runtime.clock.monotonic() - sent_mono)
        free = DueRuns(room_in=claimed.room_in if isinstance(claimed, DueRuns) else None)
        for each in claimed:
            if is_superseded(each.claim, later):
                continue
            each.claim.lease_until_mono = sent_mono + runtime.config.lease_ttl
            execution = self._active_runs.find(each.run.run_id)
            if execution is None:
                free.append(each)
            else:  # another call of this runner is about to execute it, or has lost it and ends
                execution.lose_to(each.claim)
                release = Release(status=each.run.status, due=DueTime(runtime.clock.now(), 0.0))
                begin_release(runtime, each.claim, release)  # not awaited: the other runs must begin first
        return free

    def _begin(self, due: DueRun, results: list[WorkflowResult] | None) -> Execution:
        """Execute a claimed run in the background; adds its result to `results`."""

        async def work(execution: Execution) -> ExecutionResult:
            try:
                opened = await open_due_run(self._runtime, self._workflows[due.run.workflow_name], due)
                execution.open()
                result = await self._execute(opened, execution) if isinstance(opened, Scope) else opened
            except (RunError, StoreError) as exc:
                _log.warning("run %s was not executed: %s", due.run.run_id, exc)
            except CANCELLATION:
                raise
            except Exception:  # noqa: BLE001 - one run must not keep the others from being executed
                _log.exception("run %s was not executed", due.run.run_id)
            else:
                log_if_failed(result)
                if results is not None and result is not None and not execution.was_released:
                    results.append(result)
                return result
            return None

        execution = Execution(self._runtime, due.run.run_id, is_background=True, counts=True)
        return self._active_runs.begin(execution, work)


@dataclass(slots=True)
class _Round:
    """The result of one round.

    Attributes:
        pause: Seconds until the next round is needed.
        has_claimed: Whether it has claimed a run.
        room_in: Seconds until the rate of a queue lets another run begin, by the last claim; None if it refused none.
        has_more: Whether there may be more runs to claim now: the last claim took as many as it may, or it took some
            and queues have limits, so that it did not look at all runs.
    """

    pause: float
    has_claimed: bool = False
    has_more: bool = False
    room_in: float | None = None


def _measure_claim(runtime: Runtime, claimed: Sequence[DueRun], seconds: float) -> None:
    """Report a claim, and how long the runs that begin with it were due."""
    runtime.measurements.claimed(seconds)
    now = runtime.clock.now() if claimed else None
    for each in claimed:
        run = each.run
        if now is not None and run.epoch == 0 and run.due_at is not None:
            waited = max(0.0, (now - run.due_at).total_seconds())
            runtime.measurements.run_begun(run.workflow_name, run.queue, waited)


class _Halt:
    """Signals to the work that began before it was set that no further run must be claimed."""

    is_set = False
