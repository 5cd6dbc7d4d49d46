"""What a running pipeline knows about its step; the same in this process and on a worker of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from spine_async._model.progress import Progress
from spine_async.errors import StepError


class Attempt(Protocol):
    """What a dispatcher provides for a running pipeline. The methods are called in any thread."""

    @property
    def cancel_reason(self) -> str | None:
        """Why the attempt is being cancelled, or None."""
        ...

    @property
    def last_progress(self) -> Progress | None:
        """The latest progress of this visit of the step, or None."""
        ...

    def report(self, progress: Progress) -> None:
        """Take the latest progress."""
        ...


class PipelineContext:
    """The running pipeline's view of its step. `pipeline_context()` returns it.

    Attributes:
        run_id: Id of the run; "" outside of a pipeline.
        step_name: Name of the step; None outside of a pipeline.
        attempt: Number of the attempt, from 1; 0 outside of a pipeline.
        idempotency_key: Key that stays the same for all attempts and resumes of this visit of the step; None outside of
            a pipeline.
    """

    def __init__(
        self,
        attempt_of: Attempt,
        *,
        run_id: str = "",
        step_name: str | None = None,
        attempt: int = 0,
        idempotency_key: str | None = None,
    ) -> None:
        self.run_id = run_id
        self.step_name = step_name
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self._attempt = attempt_of

    @property
    def is_cancelled(self) -> bool:
        """Whether the step is being cancelled, for instance by a timeout or by `runner.stop`.

        An `async def` pipeline need not read this, because it is cancelled. A `def` pipeline cannot be interrupted: it
        should read this now and then, and raise an exception, or call `check_cancelled`. If it returned instead, its
        step could succeed with a result that is not complete. Reading is cheap.
        """
        return self._attempt.cancel_reason is not None

    def check_cancelled(self) -> None:
        """Raise an exception if the step is being cancelled; for a `def` pipeline.

        Raises:
            StepError: It is.
        """
        reason = self._attempt.cancel_reason
        if reason is not None:
            raise StepError(f"the pipeline of step {self.step_name!r} ends, because it was cancelled ({reason})")

    @property
    def cancel_reason(self) -> str | None:
        """Why the step is being cancelled, as `WorkflowContext.cancel_reason`; None if it is not.

        On another machine the reason may not be known; it is `cancelled` then.
        """
        return self._attempt.cancel_reason

    @property
    def last_progress(self) -> Progress | None:
        """The latest progress of this visit of the step, also of an earlier attempt; None if there is none."""
        return self._attempt.last_progress

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the pipeline has come, as `WorkflowContext.progress`. The latest report counts.

        Args:
            done: How much is done, in a unit of your choice.
            total: How much there is to do, or None if that is not known.
            message: A text for people.

        Raises:
            DefinitionError: An argument is invalid.
            AttemptEndedError: The attempt of the step has ended. On another machine this may not be noticed.
        """
        self._attempt.report(Progress(done, total, message))


def pipeline_context() -> PipelineContext:
    """The context of the running pipeline, in an `async def`, in a `def`, and in functions that they call.

    Outside of a pipeline, for instance in a test that calls its function, it is a context that is never cancelled and
    does not store progress.

    Example:
        >>> def load(params):
        ...     context = pipeline_context()
        ...     for number, symbol in enumerate(params["symbols"]):
        ...         context.check_cancelled()
        ...         context.progress(number, len(params["symbols"]))
        ...     return {"rows": number}
        >>> load({"symbols": ["IBM", "SAP"]})
        {'rows': 1}
    """
    return _current.get() or PipelineContext(_NoAttempt())


@contextmanager
def entered(context: PipelineContext) -> Iterator[None]:
    """Let `pipeline_context` return this context."""
    outer = _current.get()
    _current.set(context)
    try:
        yield
    finally:
        _current.set(outer)  # not by a token, which is valid in one context only: a step may be closed in another one


class _NoAttempt:
    """Outside of a pipeline."""

    cancel_reason: str | None = None
    last_progress: Progress | None = None

    def report(self, progress: Progress) -> None:
        self.last_progress = progress


_current: ContextVar[PipelineContext | None] = ContextVar("spine_async_pipeline", default=None)
