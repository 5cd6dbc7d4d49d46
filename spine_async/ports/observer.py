"""The observer protocol: spans and metrics of runs and steps."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


class StepSpan(Protocol):
    """The span of one step visit."""

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        """The step ended with `result`; `attempts` counts from 1, `duration_ms` includes retries."""
        ...


class RunSpan(Protocol):
    """The span of one run."""

    def ended(self, status: str, category: str | None) -> None:
        """The run ended with this status and error category (None if it did not fail)."""
        ...


class Observer(Protocol):
    """Opens a span for each run and each step visit.

    Implementations must not raise, and must not record values of params or outputs.
    """

    def run(self, run_id: str, workflow: str, *, is_resumed: bool) -> AbstractContextManager[RunSpan]:
        """Open the span of a run."""
        ...

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[StepSpan]:
        """Open the span of one step visit, as a child of the current span."""
        ...
