"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, NamedTuple

from spine_async._model.context import WorkflowContext
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async.errors import RunFailedError


class StepMetric(NamedTuple):
    """Metrics of one visit of a step.

    Attributes:
        attempts: Number of attempts.
        duration_ms: Milliseconds from the first attempt to the end, including retries.
        output_size: Bytes of the output in UTF-8.
    """

    name: str
    step_type: StepType
    status: StepStatus
    attempts: int
    started_at: datetime
    duration_ms: float
    output_size: int


@dataclass(frozen=True, slots=True)
class WorkflowResult:
    """The result of `execute` or `resume`.

    Attributes:
        run_id: Id of the run.
        workflow_name: Name of the workflow.
        status: completed, failed or stopped.
        context: The final context, with the outputs of all steps.
        completed_steps: Names of completed steps in the order of first completion, each once; includes steps that
            completed before a resume.
        skipped_steps: Names of steps that were skipped or jumped over, and never completed.
        failed_steps: Names of failed steps, including tolerated failures.
        total_steps: Number of steps in the definition; 0 for a run that was enqueued by the name of its workflow and
            ended before it began, where the definition is not known.
        error_step: The step whose failure ended the run, or None.
        error: Error text, or None.
        error_category: One of `ErrorCategory`, or a text of your own; None without an error.
        stop_reason: Why the run stopped, or None.
        started_at: When the run first started.
        completed_at: When the run ended.
        duration_ms: Milliseconds from `started_at` to `completed_at`.
        step_metrics: Metrics of each visit, in order.
        compensated_steps: Paths of the visits that were compensated, in this order: `pay#2`, `pay`,
            `process_all[17]/resize`.
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
    compensated_steps: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values.

        Returns:
            The attributes by name, without `exception`: times as ISO 8601 text, `context` as its `to_dict()`, and
            `step_metrics` as a list of `{"name", "step_type", "status", "attempts", "started_at", "duration_ms",
            "output_size"}`.
        """
        names = [each.name for each in fields(self) if each.name != "exception"]
        metrics = [
            {
                **metric._asdict(),
                "step_type": metric.step_type.value,
                "status": metric.status.value,
                "started_at": metric.started_at.isoformat(),
            }
            for metric in self.step_metrics
        ]
        return {name: getattr(self, name) for name in names} | {
            "status": self.status.value,
            "context": self.context.to_dict(),
            "completed_steps": list(self.completed_steps),
            "skipped_steps": list(self.skipped_steps),
            "failed_steps": list(self.failed_steps),
            "compensated_steps": list(self.compensated_steps),
            "started_at": self.started_at.isoformat(),
            "completed_at": self.completed_at.isoformat(),
            "step_metrics": metrics,
        }

    def raise_for_status(self) -> None:
        """Raise an error unless the run completed.

        Raises:
            RunFailedError: The run failed or stopped. Its `__cause__` is the exception of the failed step, if the run
                was executed in this process.
        """
        if self.status is not RunStatus.COMPLETED:
            raise RunFailedError(
                self.run_id,
                self.status,
                step=self.error_step,
                error=self.error or self.stop_reason,
                category=self.error_category,
            ) from self.exception


def _picklable_state(result: WorkflowResult) -> list[object]:
    """The values of the fields, without the exception, which may not be picklable."""
    return [None if each.name == "exception" else getattr(result, each.name) for each in fields(result)]


# Set here, because `dataclass` replaces a `__getstate__` that the class defines (before Python 3.11.4).
WorkflowResult.__getstate__ = _picklable_state  # type: ignore[method-assign, assignment]
