"""Enumerations of states and kinds. Their values are stored."""

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
        """Whether the run has ended."""
        return self in _FINAL

    @classmethod
    def _missing_(cls, value: object) -> RunStatus:
        raise ValueError(f"there is no status {value!r:.40}; the statuses are {', '.join(cls)}")


_FINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED})


class StepStatus(StrEnum):
    """How a visit of a step ended, or one of two other kinds of journal entries.

    A `waiting` entry stores the time at which a wait ends (null for a wait without a limit), or something else about a
    visit that has not ended, such as the value of a recorded call. An `override` entry stores the `params_override` of
    a resume, the item of a map, or something about the run, such as a rejected signal or its intended outcome.
    """

    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    WAITING = "waiting"
    OVERRIDE = "override"


FINISHED = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})
"""Statuses of the visits that have a checkpoint."""


class StepType(StrEnum):
    """Kind of a step."""

    LAMBDA = "lambda"
    PIPELINE = "pipeline"
    CHOICE = "choice"
    MAP = "map"
    WAIT = "wait"
    SIGNAL = "signal"
    TRANSACTION = "transaction"
    PARALLEL = "parallel"
    WORKFLOW = "workflow"


class ErrorPolicy(StrEnum):
    """What the run does after the last failed attempt of a step.

    STOP and RETRY end the run as failed. CONTINUE continues with the next step. RETRY also applies the default retry
    policy of the runner to a step without a policy of its own.
    """

    STOP = "stop"
    CONTINUE = "continue"
    RETRY = "retry"


class EventType(StrEnum):
    """Events that the runner records. Steps may add events of other types."""

    WORKFLOW_STARTED = "workflow_started"
    WORKFLOW_RESUMED = "workflow_resumed"
    WORKFLOW_FORKED = "workflow_forked"
    WORKFLOW_ENDING = "workflow_ending"
    WORKFLOW_COMPENSATED = "workflow_compensated"
    WORKFLOW_COMPLETED = "workflow_completed"
    WORKFLOW_FAILED = "workflow_failed"
    WORKFLOW_STOPPED = "workflow_stopped"
    STEP_STARTED = "step_started"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_RETRYING = "step_retrying"
    STEP_PROGRESS = "step_progress"
    STEP_SKIPPED = "step_skipped"
    MAP_ITEM_COMPLETED = "map_item_completed"
    MAP_ITEM_FAILED = "map_item_failed"
    BRANCH_COMPLETED = "branch_completed"
    BRANCH_FAILED = "branch_failed"
    CHILD_RESUMED = "child_resumed"
    SIGNAL_REJECTED = "signal_rejected"
    CALL_RECORDED = "call_recorded"
