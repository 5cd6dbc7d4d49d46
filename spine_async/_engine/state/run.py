"""A run that this runner executes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from spine_async._engine.state.cancellation import RunCancellation
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.idleness import Idle, Idleness
from spine_async._engine.state.mailbox import Mailbox
from spine_async._engine.state.once_calls import OnceCaller
from spine_async._engine.state.outbox import Outbox, OutboxOptions
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._engine.state.tally import Tally
from spine_async._engine.state.unwinding import Unwinding
from spine_async._engine.state.wall_clock import RunClock
from spine_async._engine.tasks import Latch, Task
from spine_async._model.run_change import RunEnd
from spine_async._model.step import Definition
from spine_async._threads import AbandonedThreads
from spine_async.ports import RunSpan

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
        departure: What the run waited for when it was cancelled in order to be released, if it was idle; else None.
        previous_end: The final state from which it was resumed, or None.
        started_by: The call that created it: `execute`, `start`, `enqueue`, `fork` or `schedule`; `step` for a child.
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
        unwinding: What remains to be done after its steps have ended; None before.
        cleanup: The position in its cleanup steps, if they have begun before; else None.
        decided: The outcome that was decided before it was opened, such as a stop, if it has yet to unwind; else None.
        resumed_epoch: The claim of the last resume that is stored; 0 if there is none.
    """

    run_id: str
    workflow: Definition
    pending: PendingWrites
    started_at: datetime
    clock: RunClock
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
        """Whether a step or thread of the run may still be running although its execution has ended."""
        return bool(self.threads.names) or (self.left_task is not None and not self.left_task.done())

    @property
    def limited_from_mono(self) -> float:
        """When the time limit of the workflow began: at the first start, or at the resume of a run that had ended."""
        return self.begun_mono if self.previous_end is None else self.opened_mono
