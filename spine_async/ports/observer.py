"""The observer protocol: spans of runs and steps."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, Self

from spine_async._model.step import Step
from spine_async._model.step_result import StepResult


class StepSpan(Protocol):
    """The span of one step visit."""

    def settled(self, step: Step, result: StepResult, attempts: int, duration_ms: float) -> None:
        """The step ended with `result`; `attempts` counts from 1, `duration_ms` includes retries."""
        ...


class RunSpan(AbstractContextManager["RunSpan"], Protocol):
    """The span of one execution of a run: it has begun, is the current span inside its context, and ends with it.

    One whose context is never entered is not reported.
    """

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context to store with the run; None if nobody records the span."""
        ...

    def __enter__(self) -> Self: ...

    def ended(self, status: str, category: str | None) -> None:
        """The execution ended.

        Args:
            status: The status of a run that has ended. `parked` or `released` for a run that continues later.
            category: The error category; None if the run did not fail.
        """
        ...


class Observer(Protocol):
    """Opens a span for each execution of a run, for each step visit, and for each call that enqueues runs.

    Implementations must not raise, and must not record values of params or outputs.
    """

    def run(
        self,
        run_id: str,
        workflow: str,
        *,
        is_resumed: bool,
        continues: str | None = None,
        is_claimed: bool = False,
    ) -> RunSpan:
        """Begin the span of an execution.

        Args:
            run_id: The run.
            workflow: Name of its workflow.
            is_resumed: Whether the run is resumed.
            continues: The stored trace context to which the span gets a link, or None.
            is_claimed: Whether a worker has claimed the run. Then the span begins a trace of its own; otherwise it is a
                child of the current span.
        """
        ...

    def step(self, run_id: str, path: str, step: Step) -> AbstractContextManager[StepSpan]:
        """Begin the span of one step visit, as a child of the current span."""
        ...

    def enqueue(self, workflow: str, queue: str, count: int) -> AbstractContextManager[str | None]:
        """Begin the span of a call that stores so many runs; its context gives the trace context to store with them."""
        ...
