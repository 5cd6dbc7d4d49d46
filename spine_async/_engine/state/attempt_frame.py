"""The frame of an attempt: what the context of a step asks of the engine, such as emitting events."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.once_calls import OnceCaller
from spine_async._engine.state.progress_report import ProgressReport, add_progress_event
from spine_async._engine.state.scope import Visit, signal_token
from spine_async._engine.tasks import EventLoop, running_loop
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import frame_of
from spine_async._model.once_request import OnceRequest
from spine_async._model.progress import Progress
from spine_async.errors import AttemptEndedError, DefinitionError, SharingError

_OPENING = threading.Lock()


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of a step; the `frame` of the context that it gets.

    A worker thread that a cancelled attempt has abandoned still reads its reason here.

    Attributes:
        visit: The visit.
        has_ended: Whether it has ended, so that it emits and reports nothing more.
        is_used: Whether it has tried to emit or report something.
    """

    visit: Visit
    _reason: CancelReason | None = None
    has_ended: bool = False
    is_used: bool = False

    @property
    def current_cancel_reason(self) -> CancelReason | None:
        """Why this attempt is being cancelled or was cancelled, or None; may be read from a worker thread."""
        reason = self._reason
        return self.visit.cancel_reason_at(self.visit.run.clock.monotonic()) if reason is None else reason

    @property
    def signal_token(self) -> str:
        """The token of the next wait for a signal in the scope of the step.

        Raises:
            DefinitionError: There is none.
        """
        scope, step = self.visit.scope, self.visit.step
        segment = scope.cursor.next_signal_visit()
        if segment is None:
            problem = "signal_token needs a step that waits for a signal, here or later in the same list of steps"
            raise DefinitionError(problem, workflow=scope.workflow.name, step=step.name)
        return signal_token(scope.child_path(segment))

    def emit(self, number: int, event_type: str, data: object) -> None:
        """Emit an event as the attempt with this number; see `WorkflowContext.emit`."""
        self.is_used = True
        self.visit.run.open_outbox().emit(self, number, event_type, data)
        self.be_active()

    def report(self, number: int, progress: Progress) -> None:
        """Report progress as the attempt with this number; see `WorkflowContext.progress`."""
        self.is_used = True
        self.check_running(number)
        visit = self.visit
        if visit.report is None:
            with _OPENING:
                visit.report = visit.report or ProgressReport()
        visit.report.value, visit.report.attempt = progress, number
        self.be_active()

    @property
    def loop(self) -> EventLoop:
        """The event loop that executes the run."""
        options = self.visit.run.outbox_options
        assert options is not None  # noqa: S101 - set before the first step
        return options.loop

    async def once(self, number: int, request: OnceRequest) -> Any:
        """Execute a call unless its value is recorded; see `WorkflowContext.once`."""
        self._check_loop("once", "a def handler calls context.once_in_thread instead")
        return await self._once_caller.call(self, number, request)

    def once_in_thread(self, number: int, request: OnceRequest) -> Any:
        """As `once`, in a thread; see `WorkflowContext.once_in_thread`."""
        return self._once_caller.call_in_thread(self, number, request)

    @property
    def _once_caller(self) -> OnceCaller:
        caller = self.visit.run.once_caller
        assert caller is not None  # noqa: S101 - set before the first step
        return caller

    @property
    def last_progress(self) -> Progress | None:
        """The latest progress of the visit, or None."""
        report = self.visit.report
        return report.latest() if report is not None else None

    def check_running(self, number: int) -> None:
        """Check that it may emit and report; in any thread.

        Args:
            number: Its number, for the error.

        Raises:
            AttemptEndedError: It has ended, or the end of its run is recorded.
        """
        visit = self.visit
        pending = visit.run.pending
        if self.has_ended or pending.end is not None or pending.open_visits.get(visit.path) is not visit:
            raise AttemptEndedError(pending.claim.run_id, visit.path, number)

    async def flush(self) -> None:
        """Wait until the emitted events of the run are stored; see `WorkflowContext.flush`."""
        outbox = self.visit.run.outbox
        if outbox is not None:
            self._check_loop("flush", "a def handler calls anyio.from_thread.run(context.flush) instead")
            await outbox.flush()

    def _check_loop(self, method: str, way_out: str) -> None:
        """Raise `SharingError` in another event loop than that of the run, for instance in `asyncio.run` of a thread.

        The run would be changed by two threads at a time, and the caller might never be woken.
        """
        if running_loop() is not self.loop:
            problem = f"context.{method} of step {self.visit.step.name!r} was awaited in another event loop"
            raise SharingError(problem, f"await it in the event loop that executes the run; {way_out}")

    def settle(self) -> None:
        """Add what it emitted and reported to the pending writes, so that this precedes the end of its step."""
        visit = self.visit
        outbox = visit.run.outbox
        if outbox is not None:
            outbox.settle()
        if visit.report is not None and visit.report.read is None:
            add_progress_event(visit, visit.run.clock.monotonic())

    def be_active(self) -> None:
        """Record that the attempt is active, for its `idle_timeout`."""
        limit = self.visit.idle_limit
        if limit is not None:
            limit.active_mono = self.visit.run.clock.monotonic()

    def cut_off(self) -> None:
        """Record that a cancellation ended this attempt; if the run is not cancelled, middleware caused it."""
        self.keep_cancel_reason()
        self._reason = self._reason or CancelReason.CANCELLED
        self.visit.is_cut_off = True

    def keep_cancel_reason(self) -> None:
        """Keep the present reason, because the attempt ends and the visit may continue with another one."""
        self._reason = self.current_cancel_reason


def visit_of(context: WorkflowContext) -> Visit:
    """The visit that a step's context belongs to.

    Raises:
        TypeError: The context was not given to a step by a running workflow.
    """
    frame = frame_of(context)
    if not isinstance(frame, Attempt):
        raise TypeError("this context does not belong to a running step; pass the context that the step received")
    return frame.visit
