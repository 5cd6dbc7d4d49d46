"""How a run is seen from outside."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


class StepSpan(Protocol):
    """The stretch of time in which one step visit is at work."""

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        """The step came to `result` after so many attempts and milliseconds."""
        ...


class RunSpan(Protocol):
    """The stretch of time in which one run is at work."""

    def ended(self, status: str, category: str | None) -> None:
        """The run ended so."""
        ...


class Observer(Protocol):
    """Is told of runs and steps as they happen; must not raise, and is never given a value of a param or output."""

    def run(self, run_id: str, workflow: str, *, is_resumed: bool) -> AbstractContextManager[RunSpan]:
        """Open the span of a run."""
        ...

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[StepSpan]:
        """Open the span of one step visit, below the one that is current."""
        ...
