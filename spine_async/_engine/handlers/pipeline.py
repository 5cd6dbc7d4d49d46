"""Submits a pipeline to the dispatcher."""

from __future__ import annotations

import inspect

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.step.encoding import as_result
from spine_async._model.context import WorkflowContext
from spine_async._model.failure import ErrorCategory
from spine_async._model.pipeline_step import PipelineStep
from spine_async._model.private_copy import private_members
from spine_async._model.step_result import StepResult


async def run_pipeline(runtime: Runtime, step: PipelineStep, context: WorkflowContext) -> StepResult:
    """Submit the step's pipeline with the run's params, overlaid by the step's own. A dry run submits nothing."""
    if runtime.is_dry:
        return StepResult.ok({"dry_run": True, "pipeline": step.pipeline_name})
    if runtime.dispatcher is None:
        message = f"pipeline {step.pipeline_name!r} cannot run: this runner has no dispatcher; pass one as dispatcher="
        return StepResult.fail(message, ErrorCategory.CONFIGURATION)
    params = {**context.params, **private_members(step.config)}
    returned: object = runtime.dispatcher.submit(step.pipeline_name, params, context=context)
    return as_result(step, await returned if inspect.isawaitable(returned) else returned)
