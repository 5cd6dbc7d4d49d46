"""Calls a handler: an `async def` on the loop, a `def` in one of the runner's own worker threads."""

from __future__ import annotations

from spine_async._engine.acceptance import as_result
from spine_async._engine.engine import Engine
from spine_async._model.context import WorkflowContext
from spine_async._model.outcome import StepResult
from spine_async._model.step import LambdaStep


async def run_lambda(engine: Engine, step: LambdaStep, context: WorkflowContext) -> StepResult:
    """Call the step's handler once.

    Cancellation:
        Reaches an `async def` handler at once. A thread cannot be interrupted: it is left to itself, and what it
        returns is thrown away.
    """
    config = dict(step.config) if step.config else {}
    if step.is_async:
        return as_result(await step.handler(context, config))  # type: ignore[misc]
    return as_result(await engine.threads.call(step.name, step.handler, context, config))
