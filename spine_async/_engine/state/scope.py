"""A running workflow: the run, its scopes of steps, and the visits of single steps.

The run itself is the outermost scope. Each map item, each branch of a parallel step and each inline workflow is a scope
of its own below the visit of its step. All scopes of a run add to the same pending writes, with different paths.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn, Protocol

from spine_async._engine.state.cancellation import CancelReason, RunCancellation
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.idle_limit import IdleLimit
from spine_async._engine.state.idleness import Idle, Idleness
from spine_async._engine.state.interrupts import InterruptScope
from spine_async._engine.state.mailbox import Mailbox
from spine_async._engine.state.nested_progress import AnyProgress
from spine_async._engine.state.once_calls import OnceCaller, OnceCalls
from spine_async._engine.state.outbox import Outbox, OutboxOptions
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.pending_writes import OpenVisit, PendingWrites
from spine_async._engine.state.progress_report import ProgressReport, add_progress_event
from spine_async._engine.state.tally import Tally
from spine_async._engine.state.unwinding import Unwinding
from spine_async._engine.tasks import EventLoop, Latch, Task
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import frame_of
from spine_async._model.document import Document
from spine_async._model.due import Message
from spine_async._model.naming import is_path
from spine_async._model.once_request import OnceRequest
from spine_async._model.policy import RetryPolicy
from spine_async._model.progress import Progress
from spine_async._model.record import RunEnd
from spine_async._model.step import Definition, Step
from spine_async._model.step_result import StepResult
from spine_async._threads import AbandonedThreads
from spine_async.errors import AttemptEndedError, DefinitionError
from spine_async.ports import Clock, RunSpan

WAIT_MARK = "@until"
"""Suffix of the path of the row that stores when a wait ends."""

RESUME_MARK = "@resume"
RETRY_MARK = "@retry"
"""In the path of a row that stores the delay before another attempt; `#` and the number of attempts follow."""

ITEM_MARK = "@item"
"""In the path of the row that stores the params of a scope whose first step executes others."""


_OPENING = threading.Lock()


@dataclass(slots=True)
class Run:
    """A run that this runner executes.

    Attributes:
        pending: Its uncommitted rows, and the claim to commit them.
        cancellation: Cancels its steps, with a reason.
        stuck_outcome: The outcome to record if one of its steps does not react to its cancellation, or None.
        clock: The clock of the run.
        begun_mono: When it was started, on the monotonic clock; estimated if another execution started it.
        opened_mono: When this execution of it began, on the monotonic clock.
        done: Set when the run's task has ended, or when a step is stuck.
        exception: The exception of the step that failed the run, or None.
        renewal_mono: When the first renewal of its lease since the last successful one was attempted, or None.
        resumed_path: For a resumed run, the path of the visit that it resumes with; only this visit, if its step
            executes others, can have stored rows inside. Else None.
        idleness: Whether all of its tasks wait.
        departure: What the run waited for when it was asked to give up, if it was idle; else None.
        previous_end: The final state from which it was resumed, or None.
        started_by: The call that created it: `execute`, `start`, `enqueue`, `fork` or `schedule`.
        queue: The queue that it belongs to, or "".
        queue_key: Its key within the queue, or None.
        is_woken: Whether it continues after it was parked, so that its open visits have been announced.
        mailbox: The signals that were sent to it.
        threads: Threads of its cancelled attempts that are still running.
        left_task: If the run was left behind, its task, which releases the run when its steps and threads have ended;
            else None. A run is left behind if it was to be released and its steps or threads did not end in time.
        span: The span of its execution, if it was begun with the creation of the run; else None.
        continues: The stored trace context of the execution that this one continues, or of the creation; or None.
        is_claimed: Whether a worker has claimed it.
        outbox: The events that its steps emitted; None while no step has emitted one.
        outbox_options: What its outbox shares with others; set before its first step.
        once_caller: Executes the calls of `context.once`; set before its first step.
        unwinding: What remains to be done after its steps have come to an end; else None.
        cleanup: The position in its cleanup steps, if they have begun before; else None.
        decided: The outcome that was decided before it was opened, such as a stop, if it has yet to unwind; else None.
        resumed_epoch: The claim of the last resume that is stored; 0 if there is none.
    """

    run_id: str
    workflow: Definition
    pending: PendingWrites
    started_at: datetime
    clock: Clock
    begun_mono: float = 0.0
    opened_mono: float = 0.0
    is_resumed: bool = False
    resumed_path: str | None = None
    tally: Tally = field(default_factory=Tally)
    cancellation: RunCancellation = field(default_factory=RunCancellation)
    stuck_outcome: Outcome | None = None
    done: Latch = field(default_factory=Latch)
    exception: BaseException | None = None
    renewal_mono: float | None = None
    idleness: Idleness = field(default_factory=Idleness)
    departure: Idle | None = None
    previous_end: RunEnd | None = None
    started_by: str = "execute"
    queue: str = ""
    queue_key: str | None = None
    is_woken: bool = False
    mailbox: Mailbox = field(default_factory=Mailbox)
    threads: AbandonedThreads = field(default_factory=AbandonedThreads)
    left_task: Task[Any] | None = None
    span: RunSpan | None = None
    continues: str | None = None
    is_claimed: bool = False
    outbox: Outbox | None = None
    outbox_options: OutboxOptions | None = None
    once_caller: OnceCaller | None = None
    unwinding: Unwinding | None = None
    cleanup: Cursor | None = None
    decided: Outcome | None = None
    resumed_epoch: int = 0

    def open_outbox(self) -> Outbox:
        """The outbox of the run; in any thread."""
        with _OPENING:
            if self.outbox is None:
                options = self.outbox_options
                assert options is not None  # noqa: S101 - set before the first step
                self.outbox = Outbox(self.pending, options)
            return self.outbox

    @property
    def is_at_work(self) -> bool:
        """Whether a step or thread of the run may still be at work although its execution has ended."""
        return bool(self.threads.names) or (self.left_task is not None and not self.left_task.done())

    @property
    def limited_from_mono(self) -> float:
        """When the time limit of the workflow began: at the first start, or at the resume of a run that had ended."""
        return self.begun_mono if self.previous_end is None else self.opened_mono


@dataclass(frozen=True, slots=True)
class StoredRetry:
    """A stored delay before another attempt of a step.

    Attributes:
        attempts: Attempts made before.
        until: When the delay ends.
    """

    attempts: int
    until: datetime

    def as_dict(self) -> dict[str, object]:
        """The stored form."""
        return {"attempts": self.attempts, "until": self.until.isoformat()}

    @classmethod
    def from_dict(cls, stored: object) -> StoredRetry:
        """The delay in its stored form; raises `ValueError`, `KeyError` or `TypeError` if it is none."""
        values: Any = stored
        return cls(int(values["attempts"]), datetime.fromisoformat(values["until"]))


@dataclass(slots=True)
class Position:
    """The position of a scope in its steps: before the first one, or after the replayed visits.

    Attributes:
        cursor: The step that comes next.
        context: The context that it sees.
        waits: The end time (ISO 8601) of each wait that has begun, by the path of its visit; None: it has no limit.
        last_output: Output of the last step that ran.
        tally: Counts of the replayed visits; used for the run's own scope only.
        retries: The stored delays before another attempt, by the path of the visit.
        reported_path: Path of the last visit that has stored its progress, or None.
        has_calls: Whether a visit in the scope of an item has recorded a call of `context.once`.
        unwinding: What remains to be done if the steps of the run have come to an end; else None.
        cleanup: The position in the cleanup steps of the run, if they have begun before; else None.
        resumed_epoch: The claim of the last resume that is stored; 0 if there is none.
    """

    cursor: Cursor
    context: WorkflowContext
    waits: dict[str, str | None] = field(default_factory=dict)
    last_output: Document | None = None
    tally: Tally = field(default_factory=Tally)
    retries: dict[str, StoredRetry] = field(default_factory=dict)
    reported_path: str | None = None
    has_calls: bool = False
    unwinding: Unwinding | None = None
    cleanup: Cursor | None = None
    resumed_epoch: int = 0


@dataclass(slots=True)
class Scope:
    """Steps that run one after the other: those of the run itself, of a map item, of a branch or of a child workflow.

    Attributes:
        path: "" for the run itself, `process_all[17]` for an item, `both[left]` for a branch, `child` for a workflow.
        cursor: The step that comes next.
        context: The context that it sees.
        waits: The end time (ISO 8601) of each wait that has begun, by the path of its visit; None: it has no limit.
        retries: The stored delays before another attempt, by the path of the visit.
        wait_ends_mono: The monotonic end time of each wait by seconds that began in this process, by path of the visit.
        last_output: Output of the last step that ran.
        item_index: For an item, its index; else None.
        item_params: JSON object text of the params of the scope, while no row stores them; the next row does. None
            after that, and for a scope without params of its own.
        parent: The visit of the step that executes this scope; None for the run itself.
        nested: Progress of the step in this scope that executes others, by the path of its visit.
        is_run: Whether this is the run's own scope.
        open_scopes: Scopes inside that step that have begun and not finished, by path; a retry of the step continues
            them.
        reported_path: Path of the last visit that has stored its progress, or None.
        has_calls: Whether a visit has recorded a call of `context.once`, so that a row stores the item.
    """

    run: Run
    workflow: Definition
    path: str
    cursor: Cursor
    context: WorkflowContext
    waits: dict[str, str | None] = field(default_factory=dict)
    last_output: Document | None = None
    item_index: int | None = None
    item_params: str | None = None
    parent: Visit | None = None
    nested: dict[str, AnyProgress] = field(default_factory=dict)
    open_scopes: dict[str, Scope] = field(default_factory=dict)
    wait_ends_mono: dict[str, float] = field(default_factory=dict)
    retries: dict[str, StoredRetry] = field(default_factory=dict)
    reported_path: str | None = None
    has_calls: bool = False
    is_run: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_run = self.parent is None

    def child_path(self, segment: str) -> str:
        """Path of a visit in this scope."""
        return f"{self.path}/{segment}" if self.path else segment

    @property
    def has_stored(self) -> bool:
        """Whether an item has rows, stored or pending, so that its map must not have another item at this index."""
        return self.item_params is None or self._has_marks or self.cursor.has_moved

    @property
    def _has_marks(self) -> bool:
        return bool(self.waits or self.retries or self.nested) or self.reported_path is not None or self.has_calls

    def validated_fields(self) -> set[str]:
        """Names of the fields that the `params_model` of this workflow and those around it have stored as params."""
        model = self.workflow.params_model
        is_isolated = self.parent is not None and self.parent.step.isolates_params
        around = self.parent.scope.validated_fields() if self.parent is not None and not is_isolated else set()
        return around.union(model.model_fields) if model is not None else around

    def end_nested(self) -> None:
        """Forget the step that has executed others, with their scopes."""
        self.nested.clear()
        self.open_scopes.clear()


class CommittedResult(Protocol):
    """The encoded result of a step whose transaction has committed it."""

    result: StepResult


@dataclass(slots=True, eq=False)
class Visit(OpenVisit):
    """One visit of one step, from its start until it is settled.

    Attributes:
        attempts: Attempts made so far.
        is_cut_off: Whether a cancellation ended an attempt; such a visit is never settled.
        interrupts: For a step whose executor may end the run (map, wait): carries interrupts past middleware.
        next_retry: The policy that decides about another attempt after the current one; None if this is the last.
        ending: For a step that cancelled the scopes inside of it: its result, or the exception that ends it.
        inner_error: For a step that executes others: the exception of the scope that failed it, or None.
        tolerates_failure: For a step that executes others: whether it continues if another scope fails.
        warned_mono: When a warning last reported that it does not end, or None.
        received: The message that it has taken, or None.
        idle_limit: The limits of the current attempt, if it has an `idle_timeout`; else None.
        once_calls: The calls of `context.once` that it has recorded; None before the first one.
        committed: The result that a transaction of its step has committed, or None.
    """

    scope: Scope
    step: Step
    attempts: int = 0
    is_cut_off: bool = field(default=False, init=False)
    interrupts: InterruptScope | None = field(default=None, init=False)
    next_retry: RetryPolicy | None = field(default=None, init=False)
    ending: StepResult | BaseException | None = field(default=None, init=False)
    inner_error: BaseException | None = field(default=None, init=False)
    tolerates_failure: Callable[[], bool] | None = field(default=None, init=False)
    warned_mono: float | None = field(default=None, init=False)
    received: Message | None = field(default=None, init=False)
    idle_limit: IdleLimit | None = field(default=None, init=False)
    once_calls: OnceCalls | None = field(default=None, init=False)
    committed: CommittedResult | None = field(default=None, init=False)

    @property
    def run(self) -> Run:
        """The run that the visit belongs to."""
        return self.scope.run

    @property
    def idempotency_key(self) -> str:
        """A key that is the same for every attempt and every resume of this visit."""
        return f"{self.scope.run.run_id}/{self.path}"

    def cancel_reason_at(self, now_mono: float) -> CancelReason | None:
        """Why the step is being cancelled at that time, or None."""
        deadline_mono = self.deadline_mono  # read once: the caller may be a worker thread
        if deadline_mono is not None and deadline_mono <= now_mono:
            idle_limit = self.idle_limit
            if idle_limit is None or idle_limit.is_over_at(
                now_mono
            ):  # else the timer prolongs the deadline in a moment
                return CancelReason.STEP_TIMEOUT
        parent = self.scope.parent
        if parent is None:
            return self.run.cancellation.reason_at(now_mono)
        if parent.cancelled_mono is not None:
            is_done = isinstance(parent.ending, StepResult) and parent.ending.success
            return CancelReason.SIBLING_DONE if is_done else CancelReason.SIBLING_FAILED
        return parent.cancel_reason_at(now_mono)

    @property
    def signal_token(self) -> str:
        """The name of a signal that only this visit takes."""
        return signal_token(self.path)

    def take(self, names: Collection[str]) -> Message | None:
        """Take the oldest message with one of these names; the commit of the visit removes it from the store."""
        self.received = self.run.mailbox.take(names)
        self.taken = (self.received.id,) if self.received is not None else ()
        return self.received

    def put_back(self) -> None:
        """Return the message that it has taken, because it will not be committed."""
        message, self.received, self.taken = self.received, None, ()
        if message is not None:
            self.run.mailbox.put_back(message)

    async def interrupt(self, error: BaseException) -> NoReturn:
        """End the execution of the step with `error`, past the middleware around it."""
        if self.interrupts is None:
            raise error
        await self.interrupts.interrupt(error)


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
            await outbox.flush()

    def settle(self) -> None:
        """Add what it emitted and reported to the pending writes, so that this precedes the end of its step."""
        visit = self.visit
        outbox = visit.run.outbox
        if outbox is not None:
            outbox.settle()
        if visit.report is not None and visit.report.read is None:
            add_progress_event(visit, visit.run.clock.monotonic())

    def be_active(self) -> None:
        """Record that the attempt has shown a sign of life, for its `idle_timeout`."""
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


def signal_token(path: str) -> str:
    """The name of a signal that only the visit at this path takes. No signal of several visits has such a name."""
    return path if is_path(path) else f"{path}#1"


def visit_of(context: WorkflowContext) -> Visit:
    """The visit that a step's context belongs to.

    Raises:
        TypeError: The context was not given to a step by a running workflow.
    """
    frame = frame_of(context)
    if not isinstance(frame, Attempt):
        raise TypeError("this context does not belong to a running step; pass the context that the step received")
    return frame.visit
