"""The dispatcher protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

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
            The implementation should also cancel the pipeline.
        """
        ...
