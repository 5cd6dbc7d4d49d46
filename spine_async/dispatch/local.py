"""A dispatcher that runs pipelines in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory
from spine_async._model.progress import Progress
from spine_async._model.step_result import StepResult
from spine_async._threads import WorkerThreads
from spine_async.dispatch.context import PipelineContext, entered
from spine_async.dispatch.pipelines import PipelineFunction, Pipelines
from spine_async.errors import DefinitionError


class LocalDispatcher:
    """Registers pipelines by name and calls them.

    An `async def` runs in the event loop, a `def` in a worker thread. `pipeline_context()` gives it its step.

    Args:
        worker_threads: Maximum number of threads for `def` pipelines.
        max_abandoned_threads: Maximum number of threads that timeouts have abandoned; further `def` pipelines fail.
        pipelines: Registry of pipelines, if other dispatchers use the same; None creates one.

    Attributes:
        pipelines: The registry.

    Example:
        >>> dispatcher = LocalDispatcher()
        >>> @dispatcher.pipeline("prices.load")
        ... async def load(params):
        ...     return {"rows": len(params["symbols"])}
        >>> dispatcher.names
        ('prices.load',)
    """

    def __init__(
        self, worker_threads: int = 40, max_abandoned_threads: int = 20, *, pipelines: Pipelines | None = None
    ) -> None:
        self.pipelines = Pipelines() if pipelines is None else pipelines
        self._threads = WorkerThreads(worker_threads, max_abandoned_threads)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the registered pipelines, sorted."""
        return self.pipelines.names

    def pipeline(self, name: str) -> Callable[[PipelineFunction], PipelineFunction]:
        """Register the decorated function, which takes `params`, under `name`.

        Raises:
            DefinitionError: The name is empty or already registered, or the decorated object is not callable.
        """
        return self.pipelines.pipeline(name)

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Register `function`, which takes `params`, under `name`.

        Raises:
            DefinitionError: The name is already registered, or `function` is not callable.
        """
        self.pipelines.register(name, function)

    async def submit(
        self, pipeline: str, params: Mapping[str, object], *, context: WorkflowContext
    ) -> Mapping[str, object] | StepResult:
        """Call the pipeline with a copy of `params`; an unknown name is a failure with category CONFIGURATION."""
        try:
            found = await self.pipelines.find_in_loop(pipeline)
        except DefinitionError as exc:
            return StepResult.fail(exc.problem, ErrorCategory.CONFIGURATION)
        returned: Mapping[str, object] | StepResult
        with entered(_context_of(context)):
            if found.is_async:
                returned = await found.function(dict(params))
            else:
                returned = await self._threads.call(pipeline, found.function, dict(params))
        return returned


def _context_of(context: WorkflowContext) -> PipelineContext:
    return PipelineContext(
        _LocalAttempt(context),
        run_id=context.run_id,
        step_name=context.step_name,
        attempt=context.attempt,
        idempotency_key=context.idempotency_key,
    )


class _LocalAttempt:
    """An attempt in this process."""

    def __init__(self, context: WorkflowContext) -> None:
        self._context = context

    @property
    def cancel_reason(self) -> str | None:
        return self._context.cancel_reason

    @property
    def last_progress(self) -> Progress | None:
        return self._context.last_progress

    def report(self, progress: Progress) -> None:
        self._context.progress(progress.done, progress.total, progress.message)
