"""Checks the fields of a `StepResult`, because user code can put any object into them.

The factories of `StepResult` accept every value, and `dataclasses.replace` and the constructor bypass them. So a result
is checked when a handler, a pipeline or middleware returns it. A field that cannot be stored makes the step fail with a
text that names the step, the field and the type of the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from spine_async._model.failure import ErrorCategory, as_category, classify, describe, is_exception, storable_text
from spine_async._model.quality import as_quality
from spine_async._model.step_result import StepEvent, StepResult, as_events
from spine_async._model.time_option import option_seconds
from spine_async.errors import InvalidPolicyError


def checked_result(step: str, result: StepResult) -> StepResult:
    """The result with all its fields in the form that is stored; a failure if a field has no such form."""
    is_plain_success = (  # only the output is set, as in most results
        result.success is True
        and result.context_updates is None
        and result.quality is None
        and result.events is _NO_EVENTS
        and result.error is None
        and result.category is None
        and result.retry_after is None
        and result.skip_reason is None
        and result.stop_reason is None
        and result.exception is None
        and result.append is None
    )
    if is_plain_success:
        return result
    try:
        return _normal_form(step, result)
    except _FieldError as exc:
        return _refused(step, result, str(exc))


_NO_EVENTS: tuple[StepEvent, ...] = ()  # CPython has only one empty tuple


class _FieldError(Exception):
    """A field has a value that cannot be stored."""


def _normal_form(step: str, result: StepResult) -> StepResult:
    success: object = result.success
    if not isinstance(success, bool):
        raise _FieldError(_problem("success", success, "True or False"))
    fields: dict[str, object] = {
        "context_updates": _mapping("context_updates", result.context_updates),
        "append": _lists(result, result.append),
        "quality": _quality(result.quality),
        "events": _events(result.events),
        "skip_reason": _text("skip_reason", result.skip_reason) if success else None,
        "stop_reason": _text("stop_reason", result.stop_reason) if success else None,
        **(_NO_FAILURE if success else _failure(step, result)),
    }
    if all(fields[name] is getattr(result, name) for name in fields):
        return result  # the object that middleware returned must remain the same where possible
    return replace(result, **fields)  # type: ignore[arg-type]


_NO_FAILURE: Mapping[str, object] = {"error": None, "category": None, "retry_after": None, "exception": None}


def _failure(step: str, result: StepResult) -> dict[str, object]:
    error: object = result.error
    exception: object = result.exception
    if exception is not None and not is_exception(exception):
        raise _FieldError(_problem("exception", exception, "an exception"))
    category: object = result.category
    if is_exception(error):
        exception = exception or error
        category = category or classify(error)
        error = describe(error)
    text = _text("error", error)
    return {
        "error": text if text is not None else f"step {step!r} failed without an error text",
        "category": _category(category),
        "retry_after": _delay(result.retry_after),
        "exception": exception,
    }


def _category(value: object) -> str:
    if value is None:
        return ErrorCategory.INTERNAL
    category = as_category(value)
    if category is None:
        raise _FieldError(_problem("category", value, "one of ErrorCategory, or a text of your own"))
    return category


def _delay(value: object) -> float | None:
    if value is None:
        return None
    try:
        seconds = option_seconds(value, "retry_after")
    except ValueError as exc:
        raise _FieldError(str(exc)) from None
    return value if type(value) is float else seconds


def _text(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _FieldError(_problem(field, value, "a string"))
    text = storable_text(value)
    return value if type(value) is str and text == value else text


def _mapping(field: str, value: object) -> object:
    if value is not None and not isinstance(value, Mapping):
        raise _FieldError(_problem(field, value, "a mapping of names to values"))
    return value


def _lists(result: StepResult, value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _FieldError(_problem("append", value, "a mapping of names to lists"))
    for key, elements in value.items():
        if not isinstance(elements, (list, tuple)):
            raise _FieldError(_problem(f"append[{key!r}]", elements, "a list of elements"))
        if isinstance(result.context_updates, Mapping) and key in result.context_updates:
            raise _FieldError(f"append and context_updates both change param {key!r}; give the whole list, or the rest")
    return value or None


def _quality(value: object) -> object:
    try:
        return as_quality(value) if value is not None else None
    except InvalidPolicyError as exc:
        raise _FieldError(f"quality: {exc.problem}") from None


def _events(value: object) -> object:
    events = as_events(value) if type(value) is not tuple else value  # type: ignore[arg-type]
    if not all(type(each) is StepEvent for each in events):
        events = as_events(events)
    for index, event in enumerate(events):
        each: object = event
        if not isinstance(each, StepEvent):
            raise _FieldError(
                _problem(f"events[{index}]", each, "a StepEvent, a string, or a mapping with 'event_type'")
            )
        if not isinstance(each.metadata, Mapping):
            raise _FieldError(_problem(f"events[{index}].metadata", each.metadata, "a mapping of names to values"))
    return events


def _problem(field: str, value: object, wanted: str) -> str:
    shown = f" ({value!r})" if type(value) in _SHOWN else ""
    return f"{field} is of type {type(value).__name__}{shown}; it must be {wanted}"


_SHOWN = frozenset({int, float, bool, timedelta})


def _refused(step: str, result: StepResult, problem: str) -> StepResult:
    """The failure for an invalid field. If the result is a failure itself, its own text comes first."""
    error: object = result.error
    exception: object = result.exception
    problem = f"step {step!r} returned a StepResult with an invalid field: {problem}"
    if result.success is False and is_exception(error):
        problem, exception = f"{describe(error)}; {problem}", exception or error
    elif result.success is False and isinstance(error, str):
        problem = f"{storable_text(error)}; {problem}"
    failure = StepResult.fail(problem, ErrorCategory.INTERNAL)
    return replace(failure, exception=exception) if is_exception(exception) else failure
