"""Executes a workflow step: the steps of its child run inside the same run, in a scope of their own.

The params of the child are stored with the first row of the scope, so that an attempt that continues after stored steps
sees the same params. A retry or a resume continues after the finished steps of the child.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import replace

from spine_async._engine.commit.recorder import Commit
from spine_async._engine.handlers.inner_scope import new_scope, resumed_scope, stored_params
from spine_async._engine.handlers.map_report import base_context
from spine_async._engine.handlers.pool import Pool, is_completed
from spine_async._engine.handlers.queued_child import run_queued_child
from spine_async._engine.handlers.stored_scopes import open_progress
from spine_async._engine.run.loop import run_steps
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import visit_of
from spine_async._engine.state.branch_progress import BranchProgress
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.params import item_params, run_params
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.step.param_documents import given_params, mapping_documents
from spine_async._model.context import DRY_RUN_PARAM, WorkflowContext
from spine_async._model.context_access import for_child, params_of
from spine_async._model.document import NULL, Document, encode, join_object
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.large_document import is_large
from spine_async._model.large_text import split_members
from spine_async._model.step_result import StepResult
from spine_async._model.workflow_step import WorkflowStep
from spine_async.errors import InvalidParamsError, SerializationError

_ONLY = ""
"""Key of the only scope of a workflow step."""


async def run_workflow(runtime: Runtime, step: WorkflowStep, context: WorkflowContext) -> StepResult:
    """Run the steps of the child that are not finished yet.

    Returns:
        The output of the child's last step; or a failure with the category of the step that failed.
    """
    if step.queue is not None and not runtime.is_dry:
        return await run_queued_child(runtime, step, context)
    visit = visit_of(context)
    progress = await open_progress(runtime, visit)
    assert isinstance(progress, BranchProgress)  # noqa: S101 - that of a workflow step
    if not progress.is_finished(_ONLY):
        try:
            scope = await _open_scope(runtime, step, context, progress)
        except (InvalidParamsError, SerializationError) as exc:
            return _invalid_params(step, exc)
        child = _Child(runtime, visit, scope)
        await child.run()
        if child.failure is not None:
            return _failure(step, visit, child.failure)
        progress.finish(_ONLY, (scope.last_output or NULL).text)
    return StepResult.ok(Document(progress.outputs[_ONLY]))


class _Child(Pool[Scope]):
    """The scope of one child, which is executed in a task of its own.

    Attributes:
        failure: How it failed, or None.
    """

    def __init__(self, runtime: Runtime, visit: Visit, scope: Scope) -> None:
        super().__init__(runtime, visit, 1)
        self.failure: Outcome | None = None
        self._scopes = [scope]

    def _total(self) -> int:
        return 1

    def _ending(self) -> None:
        return None

    async def _next_entry(self) -> Scope | None:
        return self._scopes.pop() if self._scopes else None

    async def _run_entry(self, entry: Scope) -> Commit | None:
        if entry.cursor.step is not None:
            outcome = await run_steps(self._runtime, entry)
            self.failure = None if is_completed(outcome) else outcome
        return None  # the commit of the workflow step stores the last row of the child


async def _open_scope(
    runtime: Runtime, step: WorkflowStep, context: WorkflowContext, progress: BranchProgress
) -> Scope:
    visit = visit_of(context)
    path, open_scopes = progress.scope_path(_ONLY), visit.scope.open_scopes
    scope = open_scopes.get(path)
    if scope is None:
        stored = progress.stored.pop(_ONLY, None)
        text = stored_params(stored)
        params = split_members(text) if text is not None else await child_params(runtime, step, context)
        inside = for_child(context, step.child.name, params, runtime.models(step.child))
        first = text if text is not None else join_object(params).text
        if stored is None:
            scope = new_scope(visit, step.child, path, inside, first)
        else:
            scope = resumed_scope(visit, step.child, path, inside, stored, params=first)
        open_scopes[path] = scope
    return scope


async def child_params(runtime: Runtime, step: WorkflowStep, context: WorkflowContext) -> dict[str, Document]:
    """The params of the child, completed and validated.

    Raises:
        InvalidParamsError: They do not fit the child, or one of them is too large.
        SerializationError: One of them has no strict JSON form.
        StepError: The function of the step did not return a mapping; category CONFIGURATION.
    """
    if step.params is None:
        return _inherited_params(runtime, step, context)
    given = await given_params(step, context)
    if is_large(given):
        return await runtime.run_on_thread(_completed_params, runtime, step, given)
    return copy_context().run(_completed_params, runtime, step, given)


def _completed_params(runtime: Runtime, step: WorkflowStep, given: Mapping[str, object]) -> dict[str, Document]:
    limit = runtime.config.max_value_bytes
    defaults = mapping_documents("defaults", step.child.defaults, limit)
    params = run_params(step.child, defaults, {}, mapping_documents("params", given, limit), given)
    if runtime.is_dry:  # set after validation, because the model may forbid extra fields
        params[DRY_RUN_PARAM] = encode(True)
    return params


def _inherited_params(runtime: Runtime, step: WorkflowStep, context: WorkflowContext) -> dict[str, Document]:
    params = params_of(base_context(context, step.child, {}))
    named = visit_of(context).scope.validated_fields()
    return {**params, **item_params(step.child, params, {}, {}, named=named)}


def _invalid_params(step: WorkflowStep, error: InvalidParamsError | SerializationError) -> StepResult:
    is_invalid = isinstance(error, InvalidParamsError)
    category = ErrorCategory.DATA_QUALITY if is_invalid else ErrorCategory.INTERNAL
    text = storable_text(f"the params of the workflow of step {step.name!r}: {error}")
    return replace(StepResult.fail(text, category), exception=error)


def _failure(step: WorkflowStep, visit: Visit, outcome: Outcome) -> StepResult:
    visit.inner_error = outcome.exception
    of = f" of workflow {step.child.name!r}" if step.child.name else ""
    text = storable_text(f"step {outcome.error_step!r}{of} failed: {outcome.error}")
    failure = StepResult.fail(text, outcome.error_category or ErrorCategory.INTERNAL)
    return replace(failure, exception=outcome.exception)
