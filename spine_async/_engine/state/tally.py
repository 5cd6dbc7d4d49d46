"""Counts for a run's result: which steps completed, were skipped or failed, and the metrics of each visit."""

from __future__ import annotations

from collections.abc import Collection

from spine_async._model.status import StepStatus
from spine_async._model.visit_row import PastVisit
from spine_async._model.workflow_result import StepMetric

_COMPLETED = StepStatus.COMPLETED  # each step needs it, and Python 3.11 takes 140 ns to look up a member


class Tally:
    """Counts the finished visits outside of map items."""

    def __init__(self) -> None:
        self.metrics: list[StepMetric] = []
        self._skipped: dict[str, None] = {}
        self._failed: dict[str, None] = {}

    @property
    def completed(self) -> list[str]:
        """Names of completed steps in the order of first completion."""
        return list(dict.fromkeys(each.name for each in self.metrics if each.status is _COMPLETED))

    @property
    def skipped(self) -> list[str]:
        """Names of steps that were skipped or jumped over, and neither completed nor failed since."""
        completed = set(self.completed) if self._skipped else ()
        return [name for name in self._skipped if name not in completed]

    @property
    def failed(self) -> list[str]:
        """Names of steps that failed and have not completed since."""
        return list(self._failed)

    def add(self, row: PastVisit, jumped_over: Collection[str]) -> None:
        """Count a visit, and the steps that were jumped over after it."""
        name, status = row.step_name, row.status
        self.metrics.append(
            StepMetric(name, row.step_type, status, row.attempts, row.started_at, row.duration_ms, row.output_size)
        )
        if status is _COMPLETED and not self._failed and not jumped_over:
            return  # nearly always
        if status is StepStatus.FAILED:
            self._failed[name] = None
            self._skipped.pop(name, None)
        elif self._failed:
            self._failed.pop(name, None)
        if status is StepStatus.SKIPPED:
            self._skipped[name] = None
        for each in jumped_over:
            self._skipped.setdefault(each)

    def add_failure(self, metric: StepMetric) -> None:
        """Count the visit that failed the run; it has no row."""
        self.metrics.append(metric)
        self.add_failed_step(metric.name)

    def add_failed_step(self, name: str) -> None:
        """Note the step that failed the run; nothing else is known of its visit."""
        self._failed.setdefault(name)
        self._skipped.pop(name, None)
