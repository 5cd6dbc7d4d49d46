"""A dispatcher that runs pipelines in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from spine_async._model.async_callable import is_async_callable
from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory
from spine_async._model.signature import check_callable
from spine_async._model.step_result import StepResult
from spine_async._threads import WorkerThreads
from spine_async.errors import DefinitionError

PipelineFunction = TypeVar("PipelineFunction", bound=Callable[..., Any])


class LocalDispatcher:
    """Registers pipelines by name and calls them.

    An `async def` runs in the event loop, a `def` in a worker thread.

    Args:
        worker_threads: Maximum number of threads for `def` pipelines.
        max_abandoned_threads: Maximum number of threads that timeouts have abandoned; further `def` pipelines fail.

    Example:
        >>> dispatcher = LocalDispatcher()
        >>> @dispatcher.pipeline("prices.load")
        ... async def load(params):
        ...     return {"rows": len(params["symbols"])}
        >>> dispatcher.names
        ('prices.load',)
    """

    def __init__(self, worker_threads: int = 40, max_abandoned_threads: int = 20) -> None:
        self._pipelines: dict[str, tuple[Callable[..., Any], bool]] = {}
        self._threads = WorkerThreads(worker_threads, max_abandoned_threads)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the registered pipelines, sorted."""
        return tuple(sorted(self._pipelines))

    def pipeline(self, name: str) -> Callable[[PipelineFunction], PipelineFunction]:
        """Register the decorated function, which takes `params`, under `name`.

        Raises:
            DefinitionError: The name is empty or already registered, or the decorated object is not callable.
        """
        if not isinstance(name, str) or not name:
            raise DefinitionError(f"{name!r} cannot be the name of a pipeline; it must be a string")

        def register(function: PipelineFunction) -> PipelineFunction:
            self.register(name, function)
            return function

        return register

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Register `function`, which takes `params`, under `name`.

        Raises:
            DefinitionError: The name is already registered, or `function` is not callable.
        """
        if name in self._pipelines:
            raise DefinitionError(f"a pipeline named {name!r} is already registered")
        if not callable(function):
            raise DefinitionError(f"pipeline {name!r} is {function!r}; it must be callable")
        try:
            check_callable("pipeline", function)
        except ValueError as exc:
            raise DefinitionError(f"pipeline {name!r}: {exc}") from None
        self._pipelines[name] = (function, is_async_callable(function))

    async def submit(
        self, pipeline: str, params: Mapping[str, object], *, context: WorkflowContext
    ) -> Mapping[str, object] | StepResult:
        """Call the pipeline with a copy of `params`; an unknown name is a failure with category CONFIGURATION."""
        if pipeline not in self._pipelines:
            known = ", ".join(repr(name) for name in self.names) or "none"
            message = f"there is no pipeline {pipeline!r}; the registered pipelines are: {known}"
            return StepResult.fail(message, ErrorCategory.CONFIGURATION)
        function, is_async = self._pipelines[pipeline]
        returned: Mapping[str, object] | StepResult
        if is_async:
            returned = await function(dict(params))
        else:
            returned = await self._threads.call(pipeline, function, dict(params))
        return returned
