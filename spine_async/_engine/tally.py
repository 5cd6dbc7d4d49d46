"""What a run's result counts: which steps completed, were skipped, failed, and how each visit went."""

from __future__ import annotations

from collections.abc import Iterable

from spine_async._model.record import PastVisit
from spine_async._model.result import StepMetric
from spine_async._model.status import StepStatus


class Tally:
    """Grows with each settled visit outside of map items."""

    def __init__(self) -> None:
        self.metrics: list[StepMetric] = []
        self._completed: dict[str, None] = {}
        self._skipped: dict[str, None] = {}
        self._failed: dict[str, None] = {}

    @property
    def completed(self) -> list[str]:
        """Names in the order of first completion."""
        return list(self._completed)

    @property
    def skipped(self) -> list[str]:
        """Names of steps that were skipped and never completed."""
        return [name for name in self._skipped if name not in self._completed]

    @property
    def failed(self) -> list[str]:
        return list(self._failed)

    def add(self, row: PastVisit, jumped_over: Iterable[str]) -> None:
        """Count a visit, and the steps that its end jumped over."""
        self.metrics.append(
            StepMetric(
                row.step_name,
                row.step_type,
                row.status,
                row.attempts,
                row.started_at,
                row.duration_ms,
                row.output_size,
            )
        )
        if row.status is StepStatus.FAILED:
            self._failed[row.step_name] = None
        else:
            ended = self._completed if row.status is StepStatus.COMPLETED else self._skipped
            ended[row.step_name] = None
            if self._failed:
                self._failed.pop(row.step_name, None)
        for name in jumped_over:
            self._skipped.setdefault(name)

    def add_failure(self, metric: StepMetric) -> None:
        """Count the visit that failed the run; it has no row."""
        self.metrics.append(metric)
        self._failed.setdefault(metric.name)
