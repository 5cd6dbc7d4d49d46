"""An observer that records nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Self

from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


class SilentSpan:
    """A span that records nothing; one instance serves all runs and steps."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        pass

    def ended(self, status: str, category: str | None) -> None:
        pass


class SilentObserver:
    """The observer of runners with `trace_enabled=False`."""

    def run(self, run_id: str, workflow: str, *, is_resumed: bool) -> AbstractContextManager[SilentSpan]:
        return SILENT

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[SilentSpan]:
        return SILENT


SILENT = SilentSpan()
