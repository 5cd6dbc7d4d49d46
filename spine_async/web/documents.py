"""The JSON documents of responses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from spine_async._model.history import Event, RunRecord
from spine_async._model.status import EventType
from spine_async._model.workflow import Workflow
from spine_async.web.parameters import StatusName


class RunDocument(BaseModel):
    """A run. The members from `params` on are null if the caller may not see values."""

    run_id: str
    workflow_name: str
    workflow_version: int
    status: StatusName
    total_steps: int = Field(
        description="Number of steps in the definition; 0 for a run that was enqueued by name and has not begun."
    )
    error_step: str | None = Field(description="Step whose failure ended the run.")
    error_category: str | None
    stop_reason: str | None
    created_at: datetime
    started_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    queue: str | None
    key: str | None = Field(description="Key within the queue.")
    priority: int
    due_at: datetime | None = Field(description="When a working process may claim the run, if no process holds it.")
    parent_run_id: str | None = Field(description="Run whose step started this run.")
    forked_from: str | None
    values_shown: bool = Field(description="Whether the caller may see the values that follow.")
    params: dict[str, Any] | None = Field(description="Params; a listing has them only on request.")
    partition: dict[str, Any] | None
    outputs: dict[str, Any] | None = Field(description="Outputs by step, of a completed run; never in a listing.")
    error: str | None = Field(description="Text of the error.")


class RunPage(BaseModel):
    """A page of a listing."""

    runs: list[RunDocument]
    next_cursor: str | None = Field(description="Continues the listing; null if this is the last page.")


class EventDocument(BaseModel):
    """An event of a run."""

    run_id: str
    seq: int = Field(description="Number of the event, from 1 without gaps.")
    event_type: str
    step_name: str | None
    path: str | None = Field(description="Visit of the step.")
    timestamp: datetime
    metadata: dict[str, Any] = Field(description="Details; without values if the caller may not see them.")


class EventPage(BaseModel):
    """A page of events."""

    events: list[EventDocument]
    next_after: int = Field(description="Number of the last event; `after` of the next page.")


class StepDocument(BaseModel):
    """A step of a workflow."""

    name: str
    step_type: str


class WorkflowDocument(BaseModel):
    """A workflow that can be started."""

    name: str
    version: int
    description: str
    domain: str
    tags: list[str]
    steps: list[StepDocument]
    params_schema: dict[str, Any] | None = Field(description="JSON Schema of the params, if the workflow has a model.")


class WorkflowList(BaseModel):
    """The workflows of a runner."""

    workflows: list[WorkflowDocument]


class StopDocument(BaseModel):
    """What a stop has done."""

    run_id: str
    was_under_way: bool = Field(description="False if the run had ended before.")


class InvalidValue(BaseModel):
    """One invalid value of a request."""

    location: str
    message: str


class ProblemDocument(BaseModel):
    """A problem (RFC 9457)."""

    type: str = Field(description="Identifies the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What is wrong, and what to do.")
    errors: list[InvalidValue] = Field(default_factory=list, description="The invalid values; may be missing.")


_VALUES = ("params", "partition", "outputs", "error")
_COPIED = [name for name in RunDocument.model_fields if name not in {*_VALUES, "values_shown"}]


def run_document(record: RunRecord, *, shows_values: bool) -> dict[str, object]:
    """The members of a `RunDocument`."""
    document: dict[str, object] = {name: getattr(record, name) for name in _COPIED}
    document["values_shown"] = shows_values
    return document | {name: _plain(getattr(record, name)) if shows_values else None for name in _VALUES}


def event_document(event: Event, *, shows_values: bool) -> dict[str, object]:
    """The members of an `EventDocument`."""
    return {
        "run_id": event.run_id,
        "seq": event.seq,
        "event_type": event.event_type,
        "step_name": event.step_name,
        "path": event.path,
        "timestamp": event.timestamp,
        "metadata": dict(event.metadata) if shows_values else metadata_without_values(event),
    }


def metadata_without_values(event: Event) -> dict[str, object]:
    """The metadata without values that users pass to steps or that steps return."""
    shown = _OF_RUNNER if event.event_type in _RUNNER_EVENTS else _OF_EMITTED
    if shown is _OF_EMITTED and event.metadata.keys() != _EMITTED:
        return {}  # an event of a `StepResult`, whose metadata are the handler's own
    return {name: value for name, value in event.metadata.items() if name in shown}


_RUNNER_EVENTS = frozenset(EventType)
_OF_EMITTED = frozenset({"attempt", "execution"})
_EMITTED = _OF_EMITTED | {"data"}


_OF_RUNNER = frozenset(
    {
        "attempt",
        "attempts",
        "before",
        "branch",
        "category",
        "child_run_id",
        "compensates",
        "delay",
        "done",
        "duration_ms",
        "error_category",
        "error_step",
        "execution",
        "forked_from",
        "index",
        "next_step",
        "output_size",
        "queue",
        "signal",
        "status",
        "total",
        "total_steps",
        "until",
        "workflow_version",
    }
)
"""Members of the runner's own events that contain no values that users pass to steps or that steps return."""


def workflow_document(workflow: Workflow) -> dict[str, object]:
    """The members of a `WorkflowDocument`."""
    model = workflow.params_model
    return {
        "name": workflow.name,
        "version": workflow.version,
        "description": workflow.description,
        "domain": workflow.domain,
        "tags": list(workflow.tags),
        "steps": [{"name": step.name, "step_type": step.step_type.value} for step in workflow.steps],
        "params_schema": model.model_json_schema() if model is not None else None,
    }


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value
