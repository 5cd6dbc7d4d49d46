"""An observer that looks away."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from spine_async._model.outcome import StepResult
from spine_async._model.step import Step


class _SilentSpan:
    def settled(self, result: StepResult, attempts: int) -> None:
        pass

    def ended(self, status: str, category: str | None) -> None:
        pass


class SilentObserver:
    """For runners with `trace_enabled=False`."""

    def run(self, run_id: str, workflow: str, *, is_resumed: bool) -> AbstractContextManager[_SilentSpan]:
        return nullcontext(_SILENT)

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[_SilentSpan]:
        return nullcontext(_SILENT)


_SILENT = _SilentSpan()
