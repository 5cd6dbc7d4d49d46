"""The scopes of a run, and the visits of steps in them.

The run itself is the outermost scope. Each map item, each branch of a parallel step and each inline workflow is a scope
of its own below the visit of its step. All scopes of a run add to the same pending writes, with different paths.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.idle_limit import IdleLimit
from spine_async._engine.state.interrupts import InterruptScope
from spine_async._engine.state.nested_progress import AnyProgress
from spine_async._engine.state.once_calls import OnceCalls
from spine_async._engine.state.open_visit import OpenVisit
from spine_async._engine.state.position import StoredRetry
from spine_async._engine.state.run import Run
from spine_async._model.context import WorkflowContext
from spine_async._model.document import Document
from spine_async._model.due import Message
from spine_async._model.naming import is_path
from spine_async._model.policy import RetryPolicy
from spine_async._model.step import Definition, Step
from spine_async._model.step_result import StepResult


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
    """One visit of one step, from its start until its result is applied.

    Attributes:
        attempts: Attempts made so far.
        is_cut_off: Whether a cancellation ended an attempt; no result of such a visit is applied.
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


def signal_token(path: str) -> str:
    """The name of a signal that only the visit at this path takes. No signal of several visits has such a name."""
    return path if is_path(path) else f"{path}#1"
