"""The dispatcher protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeGuard

from spine_async._model.context import WorkflowContext
from spine_async._model.step_result import StepResult


class Dispatcher(Protocol):
    """Runs pipelines by name."""

    async def submit(
        self, pipeline: str, params: Mapping[str, object], *, context: WorkflowContext
    ) -> Mapping[str, object] | StepResult:
        """Run `pipeline` and return its result.

        Args:
            pipeline: Registered name of the pipeline.
            params: Params of the run, overridden by the params of the step.
            context: Context of the step, with its idempotency key.

        Returns:
            The result of the pipeline: a mapping, a pydantic model, a dataclass, or a `StepResult`.

        Cancellation:
            The implementation should also cancel the pipeline. It must return soon, whatever the pipeline does, because
            the step keeps its place among `max_concurrent_steps` until then.
        """
        ...


class ClosableDispatcher(Dispatcher, Protocol):
    """The optional capability of a dispatcher that holds connections."""

    async def close(self) -> None:
        """Release what belongs to the event loop. Called in it when a runner that uses the dispatcher is left.

        The next `submit` may be called in another event loop.
        """
        ...


def is_closable(dispatcher: object) -> TypeGuard[ClosableDispatcher]:
    """Whether a dispatcher has this capability."""
    return hasattr(dispatcher, "close")
