"""The closed sets of states and kinds, as they are stored.

What every step asks for is bound to a name of its own where it is asked for: Python 3.11 takes ten times as long to
find a member of an enum as a global.
"""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """State of a run. `execute` returns only the final three."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED})


class StepStatus(StrEnum):
    """How one visit of a step ended; the last two are journal entries that are no visits.

    `waiting` keeps the moment a wait ends at; `override` keeps what `params_override` added on a resume.
    """

    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    WAITING = "waiting"
    OVERRIDE = "override"


FINISHED = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})
"""Statuses of the visits that have a checkpoint."""


class StepType(StrEnum):
    LAMBDA = "lambda"
    PIPELINE = "pipeline"
    CHOICE = "choice"
    MAP = "map"
    WAIT = "wait"


class ErrorPolicy(StrEnum):
    """What happens once a step's attempts are used up.

    STOP and RETRY end the run as failed, CONTINUE goes on with the next step. RETRY also applies the runner's default
    retry policy where the step has none of its own.
    """

    STOP = "stop"
    CONTINUE = "continue"
    RETRY = "retry"


class EventType(StrEnum):
    """The events the runner records by itself; a step may add events of other types."""

    WORKFLOW_STARTED = "workflow_started"
    WORKFLOW_RESUMED = "workflow_resumed"
    WORKFLOW_COMPLETED = "workflow_completed"
    WORKFLOW_FAILED = "workflow_failed"
    WORKFLOW_STOPPED = "workflow_stopped"
    STEP_STARTED = "step_started"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_RETRYING = "step_retrying"
    STEP_SKIPPED = "step_skipped"
    MAP_ITEM_COMPLETED = "map_item_completed"
    MAP_ITEM_FAILED = "map_item_failed"
