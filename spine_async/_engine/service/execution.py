"""One execution of a run in this process, which several callers may await."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.idleness import Idle
from spine_async._engine.state.run import Run
from spine_async._engine.tasks import CANCELLATION, Latch, Task, call_later, mark_retrieved, new_future, wait_shielded
from spine_async._model.run_claim import Claim
from spine_async._model.status import RunStatus
from spine_async._model.workflow_result import WorkflowResult

ExecutionResult: TypeAlias = WorkflowResult | None
"""The result of the run; None if it was not executed here."""

_log = logging.getLogger("spine_async")

_SETTLE = 0.02  # seconds for which a run must be idle before it is parked
_LOOK_AGAIN = 1.0  # seconds, while a thread that a step has abandoned is running


class Execution:
    """An execution from its registration to its result.

    A cancellation that arrives before the run is opened is kept until then.

    Args:
        runtime: What all runs share.
        run_id: The run.
        is_background: Whether nobody needs to await it, so that the run may be parked while it waits.

    Attributes:
        task: The task that opens and executes the run.
        opened: Set when the run is open: it is stored, or opening it has failed.
        has_opened: Whether opening it has succeeded.
        counts: Whether it uses the capacity of the worker.
        is_background: Whether nobody needs to await it.
        awaiting_steps: Number of its steps that await other runs; it uses no capacity meanwhile.
    """

    def __init__(self, runtime: Runtime, run_id: str, *, is_background: bool = False, counts: bool = False) -> None:
        self.run_id = run_id
        self.task: Task[ExecutionResult] | None = None
        self.opened = Latch()
        self.has_opened = False
        self.counts = counts
        self.is_background = is_background
        self.awaiting_steps = 0
        self._runtime = runtime
        self._callers = 0
        self._run: Run | None = None
        self._waiting: list[tuple[CancelReason, str | None, bool]] = []

    @property
    def has_run(self) -> bool:
        """Whether it executes the run. Before it is opened this is unknown; afterwards there may be nothing to do."""
        return self._run is not None

    @property
    def uses_slot(self) -> bool:
        """Whether the run belongs to a queue, where another run may take its place."""
        return self._run is not None and self._run.queue != ""

    @property
    def was_parked(self) -> bool:
        """Whether it ended because the run only waits."""
        return self._run is not None and self._run.cancellation.reason is CancelReason.PARKED

    @property
    def was_released(self) -> bool:
        """Whether it ended, or will end, without recording an end of the run."""
        run = self._run
        return run is not None and (run.cancellation.is_release or run.pending.release is not None)

    @property
    def is_ending(self) -> bool:
        """Whether the outcome of the run is decided: its end is stored, or about to be."""
        run = self._run
        return run is not None and run.pending.end is not None and run.pending.release is None

    def open(self) -> None:
        """Take note that the run is open."""
        self.has_opened = True
        self.opened.set()

    def caller(self) -> AbstractAsyncContextManager[None]:
        """Inside, the run is executed for a caller: it stays in memory.

        Cancellation:
            If the run was created by `execute` and this is its last caller, raised once the run is recorded as stopped.
        """
        return _Caller(self)

    def join(self) -> None:
        """Count another caller, until `leave`."""
        self._callers += 1

    async def leave(self, error: BaseException | None) -> None:
        """Count one caller less, which leaves with this error or without one."""
        try:
            if error is None or self.task is None:
                return
            self.task.add_done_callback(mark_retrieved)
            if isinstance(error, CANCELLATION) and self._callers == 1 and self._stops_with_callers():
                self.cancel(CancelReason.CANCELLED)
                await wait_shielded(self.task, self.opened.future())
                if self._stops_with_callers():  # until it was open, it was unknown who had created the run
                    await wait_shielded(self.task)
        finally:
            self._callers -= 1
            self._look_at_idleness()

    async def result(self) -> ExecutionResult:
        """Wait for the result; a cancellation ends only the wait."""
        task = self.task
        assert task is not None  # noqa: S101 - set when it was registered
        if not task.done():
            waiter = new_future()

            def wake(ended: Task[ExecutionResult]) -> None:
                if not waiter.done():
                    waiter.set_result(None)

            task.add_done_callback(wake)
            try:
                await waiter
            except BaseException:
                task.remove_done_callback(wake)
                raise
        return task.result()

    def attach(self, run: Run) -> None:
        """Set the run, which is about to begin; passes a waiting cancellation on to it."""
        self._run = run
        run.idleness.on_idle = self._look_at_idleness
        for reason, text, compensates in self._waiting:
            if reason is not CancelReason.CANCELLED or self._stops_with_callers():
                self.cancel(reason, text, compensates)

    def cancel(self, reason: CancelReason, text: str | None = None, compensates: bool = False) -> None:  # noqa: FBT001, FBT002
        """Cancel the run, now or as soon as it is attached; the first reason counts.

        Args:
            reason: The reason.
            text: The `stop_reason` to record; None records the reason.
            compensates: Whether the finished steps are compensated.
        """
        run = self._run
        if run is None:
            self._waiting.append((reason, text, compensates))
            return
        if run.cancellation.reason is None:
            run.departure = run.idleness.idle
            run.cancellation.compensates = compensates
        run.cancellation.request(reason, run.clock.monotonic(), text)

    def lose_to(self, claim: Claim) -> None:
        """Cancel the run if it is executed by an earlier claim than this one."""
        run = self._run
        if run is not None and run.pending.claim.epoch < claim.epoch and not (self.is_ending or self.was_released):
            self.cancel(CancelReason.LEASE_LOST)

    def drain(self) -> None:
        """Cancel a run that has not begun or that only waits; any other may continue for a while."""
        if self._run is None or self._run.idleness.idle is not None:
            self.cancel(CancelReason.SHUTDOWN)

    def _stops_with_callers(self) -> bool:
        if self._run is None:
            return not self.is_background
        return self._run.started_by == "execute"

    def _look_at_idleness(self) -> None:
        run = self._run
        idle = run.idleness.idle if run is not None else None
        if idle is not None:
            call_later(_SETTLE, self._park_if_idle, idle.changes)

    def _park_if_idle(self, changes: int) -> None:
        """Park the run if it has been idle since; a run that leaves the runner is parked whoever awaits it."""
        run, runtime = self._run, self._runtime
        idle = run.idleness.idle if run is not None else None
        if run is None or idle is None or idle.changes != changes or run.cancellation.reason is not None:
            return
        if runtime.is_draining:
            self.cancel(CancelReason.SHUTDOWN)
            return
        has_deadline = any(each.deadline_mono is not None for each in run.pending.open_visits.values())
        is_awaited = self._callers > 0 or not self.is_background
        if not runtime.parks or has_deadline or (is_awaited and not self._blocks_queue(idle)):
            return
        if run.threads.names:  # they may still be running, so the run keeps its owner
            call_later(_LOOK_AGAIN, self._park_if_idle, changes)
            return
        due = idle.due
        if due is None or (due.at - run.clock.now()).total_seconds() > runtime.config.park_after:
            self.cancel(CancelReason.PARKED)

    def _blocks_queue(self, idle: Idle) -> bool:
        """Whether the run keeps a slot of a limited queue while it waits for a message.

        Then it is parked although somebody awaits it: a child of the run may wait for this slot.
        """
        limits = self._runtime.limits_of(self._run.queue) if self._run is not None else None
        return limits is not None and limits.limits_held and idle.awaits_messages


class _Caller(AbstractAsyncContextManager[None]):
    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    async def __aenter__(self) -> None:
        self._execution.join()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._execution.leave(error)


def log_if_failed(result: ExecutionResult) -> None:
    """Log a run that failed in the background: perhaps nobody awaits its result."""
    if result is not None and result.status is RunStatus.FAILED:
        _log.error("run %s failed at step %s (%s)", result.run_id, result.error_step, result.error_category)
