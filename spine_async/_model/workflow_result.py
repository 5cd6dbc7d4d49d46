"""What a run came to."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import NamedTuple

from spine_async._model.context import WorkflowContext
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async.errors import RunFailedError


class StepMetric(NamedTuple):
    """One visit of a step: how it ended, after how many attempts, in what time."""

    name: str
    step_type: StepType
    status: StepStatus
    attempts: int
    started_at: datetime
    duration_ms: float
    output_size: int


@dataclass(frozen=True, slots=True)
class WorkflowResult:
    """How `execute` or `resume` ended.

    Attributes:
        run_id: The run; `resume` takes it.
        status: completed, failed or stopped.
        context: The context at the end; earlier outputs are read from it.
        completed_steps: Names in the order of first completion, each once, those from before a resume included.
        skipped_steps: Names of steps that skipped themselves or were jumped over and never completed.
        failed_steps: Names of steps that failed, tolerated or not.
        total_steps: Steps in the definition.
        error_step: The step that failed the run, or None.
        error: What went wrong, or None.
        error_category: One of `ErrorCategory`, or None.
        stop_reason: Why the run stopped, or None.
        started_at: When the run was first started.
        completed_at: When it ended.
        duration_ms: Milliseconds from the one to the other.
        step_metrics: One for each visit of a step, in order.
        exception: The exception of the step that failed the run, in the process that executed it; else None. It is
            not pickled.
    """

    run_id: str
    workflow_name: str
    status: RunStatus
    context: WorkflowContext
    completed_steps: list[str]
    skipped_steps: list[str]
    failed_steps: list[str]
    total_steps: int
    error_step: str | None
    error: str | None
    error_category: str | None
    stop_reason: str | None
    started_at: datetime
    completed_at: datetime
    duration_ms: float
    step_metrics: list[StepMetric]
    exception: BaseException | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> list[object]:
        return [None if each.name == "exception" else getattr(self, each.name) for each in fields(self)]

    def raise_for_status(self) -> None:
        """Return if the run completed.

        Raises:
            RunFailedError: It failed or stopped. Its `__cause__` is the exception of the failed step, if the run was
                executed in this process.
        """
        if self.status is not RunStatus.COMPLETED:
            raise RunFailedError(
                self.run_id,
                self.status,
                step=self.error_step,
                error=self.error or self.stop_reason,
                category=self.error_category,
            ) from self.exception
