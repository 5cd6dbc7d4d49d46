"""Refuses a result that does not fit the scope of its step, such as elements for a param that is no list."""

from __future__ import annotations

from spine_async._engine.state.cursor import jump_of
from spine_async._engine.state.scope import Visit
from spine_async._engine.step.encoding import EncodedResult, encode_result
from spine_async._engine.step.large_values import size_problem
from spine_async._model.choice_step import ChoiceStep
from spine_async._model.context_access import params_of
from spine_async._model.failure import ErrorCategory
from spine_async._model.list_document import is_list
from spine_async._model.step_result import StepResult


def fitting_result(visit: Visit, encoded: EncodedResult, max_bytes: int) -> EncodedResult:
    """The result, or a failure if it does not fit the scope.

    Args:
        visit: The visit.
        encoded: Its result.
        max_bytes: The largest list that elements may be appended to.
    """
    if encoded.appends is not None:
        problem = _append_problem(visit, encoded, max_bytes)
    elif isinstance(visit.step, ChoiceStep):
        problem = _choice_problem(visit, encoded)
    else:
        return encoded
    if problem is None:
        return encoded
    return encode_result(visit.step, StepResult.fail(problem, ErrorCategory.CONFIGURATION))


def _choice_problem(visit: Visit, encoded: EncodedResult) -> str | None:
    if not encoded.result.success or encoded.result.skip_reason is not None:
        return None
    if jump_of(encoded.output.value() if encoded.output else None, visit.scope.cursor) is not None:
        return None
    return f"choice {visit.step.name!r} must return an output whose 'next_step' is a step of the workflow or None"


def _append_problem(visit: Visit, encoded: EncodedResult, max_bytes: int) -> str | None:
    params = params_of(visit.scope.context)
    for key, added in (encoded.appends or {}).items():
        present = params.get(key)
        if present is None:
            continue
        if not is_list(present):
            return (
                f"step {visit.step.name!r} appends to param {key!r}, which is not a list; set it with context_updates"
            )
        size = present.size + added.size
        if size > max_bytes:
            return size_problem(f"step {visit.step.name!r} appends to param {key!r}, which then", size, max_bytes)
    return None
