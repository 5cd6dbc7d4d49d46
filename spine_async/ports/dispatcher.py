"""Where pipelines run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from spine_async._model.context import WorkflowContext
from spine_async._model.step_result import StepResult


class Dispatcher(Protocol):
    """Runs a named pipeline and gives back what it returned."""

    async def submit(
        self, pipeline: str, params: Mapping[str, object], *, context: WorkflowContext
    ) -> Mapping[str, object] | StepResult:
        """Run `pipeline` to its end.

        Args:
            pipeline: Its registered name.
            params: The run's params with the step's own on top.
            context: Context of the step, with its idempotency key.

        Returns:
            What the pipeline returned: a mapping, a pydantic model, a dataclass, or a `StepResult`.

        Cancellation:
            The pipeline should end with the call.
        """
        ...
