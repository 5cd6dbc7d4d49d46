"""Stored runs, checkpoints and events as users receive them: frozen, with decoded values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from spine_async._model.status import RunStatus, StepType


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A stored run, as `get_run` and `list_runs` return it. Times are aware, in UTC.

    Attributes:
        params: Params of the run; None if `list_runs` was not asked for them.
        queue: The queue that it was put into, or None.
        key: Its key within the queue, or None.
        due_at: When it may be claimed, if no runner executes it; else None.
        forked_from: Id of the run that it was forked from, or None.
        owner: The process that executes it, as in `WorkerRecord.owner`; None if nobody does.
        parent_run_id: Id of the run whose step started this run, or None.
        last_seq: Number of its last event, as the store counts them; 0 before the first one.
        outputs: Outputs by step name, of a completed run that `get_run` returned; else None.
        cursor: Its place in a listing; `list_runs(cursor=...)` continues behind it, also if the run was deleted.
    """

    run_id: str
    workflow_name: str
    workflow_version: int
    status: RunStatus
    params: Mapping[str, object] | None
    partition: Mapping[str, object] | None
    total_steps: int
    error_step: str | None
    error: str | None
    error_category: str | None
    stop_reason: str | None
    created_at: datetime
    started_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    queue: str | None = None
    key: str | None = None
    priority: int = 0
    due_at: datetime | None = None
    parent_run_id: str | None = None
    forked_from: str | None = None
    owner: str | None = None
    last_seq: int = 0
    outputs: Mapping[str, object] | None = field(default=None, repr=False)
    cursor: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A finished step visit with the context after it.

    Attributes:
        step_name: Name of the step.
        path: Position in the run; differs between visits and map items of the same step, for instance `review#3`.
        seq: Number of the visit's end event; increases with time.
        context_snapshot: `{"params": …, "outputs": {step: …}, "quality": {step: …}, "partition": …}`.
    """

    run_id: str
    workflow_name: str
    step_name: str
    path: str
    seq: int
    step_type: StepType
    created_at: datetime
    context_snapshot: Mapping[str, object] = field(repr=False)

    @property
    def checkpoint_step(self) -> str:
        """The same as `step_name`."""
        return self.step_name


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a run. `seq` counts from 1 without gaps."""

    run_id: str
    seq: int
    event_type: str
    step_name: str | None
    path: str | None
    timestamp: datetime
    metadata: Mapping[str, object]
