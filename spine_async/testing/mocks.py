"""Replaces the handlers of a workflow for a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from inspect import isawaitable
from typing import Any, cast

from spine_async._model.context import WorkflowContext
from spine_async._model.lambda_step import LambdaStep
from spine_async._model.map_step import MapStep
from spine_async._model.parallel_step import ParallelStep
from spine_async._model.step import Definition, Step
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_step import WorkflowStep
from spine_async.errors import UnknownStepError


def mock_steps(workflow: Workflow, outputs: Mapping[str, object]) -> Workflow:
    """A copy of the workflow in which some steps return given outputs instead of calling their handlers.

    Args:
        workflow: The workflow; it is not changed.
        outputs: For each step an output, an exception to raise, or a handler `(context, config)` to call instead. A
            step inside a map, a branch or a child workflow is named by its path without indexes: `process_all/resize`
            in a map, `checks[fraud]/score` in a branch, `ship/label` in a child workflow.

    Raises:
        UnknownStepError: The workflow has no such step.

    Example:
        >>> flow = Workflow("f", [Step.lambda_("fetch", lambda context, config: {"rows": open("/missing").read()})])
        >>> mock_steps(flow, {"fetch": {"rows": 3}}).step_names
        ('fetch',)
    """
    unused = dict(outputs)
    mocked = _mocked(workflow, "", unused)
    if unused:
        paths = ", ".join(map(repr, sorted(unused)))
        raise UnknownStepError(
            f"there is no step at {paths}; a step in a map is named like 'map/step'", workflow=workflow.name
        )
    return mocked


def _mocked(workflow: Definition, prefix: str, outputs: dict[str, object]) -> Workflow:
    given = cast("Workflow", workflow)
    return Workflow(
        given.name,
        [_mocked_step(step, prefix, outputs) for step in given.steps],
        domain=given.domain,
        description=given.description,
        version=given.version,
        defaults=given.defaults,
        tags=given.tags,
        params_model=given.params_model,
    )


def _mocked_step(step: Step, prefix: str, outputs: dict[str, object]) -> Step:
    path = f"{prefix}{step.name}"
    if path in outputs:
        return _lambda(step, outputs.pop(path))
    if isinstance(step, MapStep):
        return replace(step, iterator=_mocked(step.inner[""], f"{path}/", outputs)) if step.inner else step
    if isinstance(step, WorkflowStep):
        return replace(step, child=_mocked(step.child, f"{path}/", outputs))
    if isinstance(step, ParallelStep):
        inner = {name: _mocked(branch, f"{path}[{name}]/", outputs) for name, branch in step.inner.items()}
        return replace(step, branches=inner)
    return step


def _lambda(step: Step, output: object) -> Step:
    """A lambda step with the options of the step."""
    options = {each.name: getattr(step, each.name) for each in fields(Step) if each.init}
    return LambdaStep(**options, handler=_handler(output))


def _handler(output: object) -> Any:
    if callable(output) and not isinstance(output, type):
        return output

    async def give(context: WorkflowContext, config: Mapping[str, Any]) -> object:
        if isinstance(output, BaseException):
            raise output
        return await output if isawaitable(output) else output

    return give
