"""Calls a handler: an `async def` on the loop, a `def` in one of the runner's own worker threads."""

from __future__ import annotations

from collections.abc import Awaitable

from spine_async._engine.runtime.runtime import Runtime
from spine_async._model.context import WorkflowContext
from spine_async._model.lambda_step import LambdaStep
from spine_async._model.private_copy import private_members


def run_lambda(runtime: Runtime, step: LambdaStep, context: WorkflowContext) -> Awaitable[object]:
    """Call the step's handler once and return its result.

    Cancellation:
        Reaches an `async def` handler at once. A thread cannot be interrupted: it continues to its end, and its return
        value is discarded.
    """
    config = private_members(step.config) if step.config else {}
    if step.is_async:
        return step.handler(context, config)  # type: ignore[return-value]
    return runtime.threads.call(step.name, step.handler, context, config)
