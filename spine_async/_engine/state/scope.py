"""The places in a running workflow: the run, a scope of steps in it, and the visit of one step.

The run itself is the outermost scope; each map item is a scope of its own, below the map's visit. All scopes of a run
write into one ledger, under paths that tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from spine_async._engine.state.cancellation import CancelReason, Interruption
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.deadline import Limit
from spine_async._engine.state.map_progress import MapMemory
from spine_async._engine.state.outcome import ScopeEnd
from spine_async._engine.state.pending_writes import Ledger, OpenVisit
from spine_async._engine.state.tally import Tally
from spine_async._engine.tasks import Gate
from spine_async._model.context import WorkflowContext
from spine_async._model.document import Document
from spine_async._model.record import VisitRow
from spine_async._model.step import Step
from spine_async._model.workflow import Workflow
from spine_async.ports import Clock


@dataclass(slots=True)
class Run:
    """One run while it is executed here.

    Attributes:
        hung: The end to record where one of its steps does not end although it was cancelled, or None.
        over: Ended when the run's task is, or when it hangs.
    """

    run_id: str
    workflow: Workflow
    ledger: Ledger
    started_at: datetime
    clock: Clock
    is_resumed: bool = False
    is_dry: bool = False
    tally: Tally = field(default_factory=Tally)
    interruption: Interruption = field(default_factory=Interruption)
    hung: ScopeEnd | None = None
    over: Gate = field(default_factory=Gate)


@dataclass(slots=True)
class Scope:
    """Steps that run one after the other: the run's own, or those of one map item.

    Attributes:
        path: "" for the run itself, `process_all[17]` for an item.
        item_index: Index of the item, or None.
        opening: JSON object text of the params that the scope's first row has to record: the item; else None.
        waits: Moment at which a wait that had begun ends, by the path of its visit.
        maps: What is known of the items of maps in this scope, by the path of the map's visit.
        last_output: Output of the last step that ran.
        parent: Visit of the map that an item belongs to, or None.
        outer_memory: For an item, what its map knows of a former execution.
        limit: The time limit of its attempts, while its steps are at work.
    """

    run: Run
    workflow: Workflow
    path: str
    cursor: Cursor
    context: WorkflowContext
    item_index: int | None = None
    opening: str | None = None
    waits: dict[str, str] = field(default_factory=dict)
    maps: dict[str, MapMemory] = field(default_factory=dict)
    last_output: Document | None = None
    parent: Visit | None = None
    outer_memory: MapMemory | None = None
    limit: Limit = field(init=False)

    @property
    def is_run(self) -> bool:
        """Whether this is the run's own scope, not a map item's."""
        return self.item_index is None

    def child_path(self, segment: str) -> str:
        return f"{self.path}/{segment}" if self.path else segment

    def stored_below(self, visit_path: str) -> list[VisitRow]:
        """Rows that a former execution stored for the items of a map in this item."""
        if self.outer_memory is None or self.item_index is None:
            return []
        return self.outer_memory.rows_below(self.item_index, visit_path)


@dataclass(slots=True)
class Visit:
    """One visit of one step, from its start until it is settled; the `frame` of the contexts that the step is given."""

    scope: Scope
    step: Step
    open: OpenVisit
    attempts: int = 0

    @property
    def path(self) -> str:
        return self.open.path

    @property
    def run(self) -> Run:
        return self.scope.run

    def cancel_reason(self, now_mono: float) -> CancelReason | None:
        """Why the step is being cancelled at that moment, or None."""
        deadline = self.open.deadline_mono
        if deadline is not None and deadline <= now_mono:
            return CancelReason.STEP_TIMEOUT
        parent = self.scope.parent
        if parent is None:
            return self.run.interruption.reason_at(now_mono)
        if parent.open.cancelled_mono is not None:
            return CancelReason.SIBLING_FAILED
        return parent.cancel_reason(now_mono)

    @property
    def current_cancel_reason(self) -> CancelReason | None:
        """Why the step is being cancelled right now; may be read from a worker thread."""
        return self.cancel_reason(self.run.clock.monotonic())

    @property
    def idempotency_key(self) -> str:
        return f"{self.scope.run.run_id}/{self.open.path}"


def visit_of(context: WorkflowContext) -> Visit:
    """The visit that a step's context belongs to.

    Raises:
        TypeError: The context was not given to a step by a running workflow.
    """
    if not isinstance(context.frame, Visit):
        raise TypeError("this context does not come from a running step; pass on the one the step was given")
    return context.frame
