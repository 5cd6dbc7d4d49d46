"""Encodes the value that a step returned as strict JSON; a value that cannot be stored becomes a failure."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from spine_async._engine.step.result_check import checked_result
from spine_async._engine.tasks import CANCELLATION, STRAY_CANCELLATION
from spine_async._model.document import NULL, Document, PlainDocument, encode, encode_object
from spine_async._model.failure import ErrorCategory, validation_problems
from spine_async._model.model_form import encode_model
from spine_async._model.naming import event_type_problem
from spine_async._model.quality import QualityMetrics
from spine_async._model.step import Step
from spine_async._model.step_result import StepEvent, StepResult, plain_success
from spine_async._threads import RAISED_GENERATOR_EXIT
from spine_async.errors import SerializationError, StepError

_NO_UPDATES: Mapping[str, Document] = {}
NO_OUTPUT = StepResult.ok()
"""Result of every step that returns None; one object serves all, because results are immutable."""


@dataclass(slots=True)
class EncodedResult:
    """A result with the strict JSON of its values, encoded once when the step returns.

    Attributes:
        result: The result.
        output: None if the step has no output to store.
        updates: Params that change, by name.
        quality: Quality metrics, or None.
        events: Type and metadata (JSON text) of each event that the step added.
        appends: Arrays of elements to append to params, by name.
    """

    result: StepResult
    output: Document | None
    updates: Mapping[str, Document]
    quality: Document | None
    events: tuple[tuple[str, str], ...] = ()
    appends: Mapping[str, Document] | None = None


WITHOUT_OUTPUT = EncodedResult(NO_OUTPUT, NULL, _NO_UPDATES, None)
"""The encoded form of `NO_OUTPUT` for a step without a model and without thresholds; never changed."""


def as_result(step: Step, returned: object) -> StepResult:
    """The result for the value that a handler, pipeline or middleware returned, with fields that can be stored.

    Source: `docs/tutorial.md`, "A first workflow".
    """
    if returned is NO_OUTPUT:
        return NO_OUTPUT
    if isinstance(returned, StepResult):
        return checked_result(step.name, returned)
    if returned is None:
        return NO_OUTPUT
    if isinstance(returned, (dict, Mapping, BaseModel)) or _is_dataclass_value(returned):
        return plain_success(returned)
    if inspect.iscoroutine(returned):
        returned.close()  # it will never be awaited, and Python would warn about that later
    return StepResult.fail(
        f"step {step.name!r} returned a value of type {type(returned).__name__}; "
        "it must return a StepResult, a mapping, a pydantic model, a dataclass or None",
        ErrorCategory.CONFIGURATION,
    )


def raised_failure(step: Step, error: BaseException) -> StepResult:
    """The failure of a step whose handler, or other user code of it, raised `error` although nobody cancelled it."""
    if type(error) is CANCELLATION:
        return StepResult.fail(STRAY_CANCELLATION)
    if isinstance(error, GeneratorExit):
        converted = StepError(RAISED_GENERATOR_EXIT)
        converted.__cause__, error = error, converted
    return checked_result(step.name, StepResult.from_exception(error))


def encode_result(step: Step, result: StepResult, *, is_checked: bool = True) -> EncodedResult:
    """Encode the values of a result; returns a failure if they cannot be stored or break a quality threshold.

    Args:
        step: The step.
        result: Its result.
        is_checked: Whether the step's `output_model` and `quality_thresholds` apply.
    """
    violations = _violations(step, result) if is_checked and step.quality_thresholds is not None else None
    if violations:
        error = f"step {step.name!r} violates its quality thresholds: {'; '.join(violations)}"
        result = StepResult.fail(error, ErrorCategory.DATA_QUALITY, result.output, result.quality, result.events)
    try:
        encoded = EncodedResult(result, _output(result, step.output_model if is_checked else None), _NO_UPDATES, None)
        if result.context_updates:
            encoded.updates = _documents("context_updates", result.context_updates)
        if result.append is not None and result.success:
            encoded.appends = _documents("append", result.append)
        if result.quality is not None:
            encoded.quality = _within("quality", result.quality)
        if result.events:
            encoded.events = _own_events(result.events)
    except SerializationError as exc:
        if not result.success:  # the reason of the failure matters more than its output
            return EncodedResult(result, None, _NO_UPDATES, None)
        return _refused(f"step {step.name!r} returned a value that cannot be stored: {exc}", ErrorCategory.INTERNAL)
    except ValidationError as exc:
        error = f"the output of step {step.name!r} does not fit its output_model: {validation_problems(exc)}"
        return _refused(error, ErrorCategory.DATA_QUALITY)
    return encoded


def encode_output(step: Step, output: object) -> Document:
    """The stored form of an output that a step would have returned.

    Raises:
        SerializationError: It has no strict JSON form.
        ValidationError: It does not fit the `output_model` of the step.
    """
    document = _output(StepResult.ok(output), step.output_model)
    return NULL if document is None else document


def _own_events(events: Iterable[StepEvent]) -> tuple[tuple[str, str], ...]:
    return tuple((_own_type(event.event_type), _within("events", event.metadata).text) for event in events)


def _output(result: StepResult, model: type[BaseModel] | None) -> Document | None:
    has_value = result.success and result.skip_reason is None
    if result.output is None and not has_value:
        return None
    if model is None:
        return encode(result.output)
    if not has_value:
        return PlainDocument(encode(result.output).text)
    return encode_model(model.model_validate(_plain_dataclass(result.output)), model)


def _documents(part: str, values: Mapping[str, object]) -> Mapping[str, Document]:
    if not isinstance(values, Mapping):
        raise SerializationError(f"{part} is of type {type(values).__name__}, not a mapping")
    try:
        return encode_object(values)
    except SerializationError as exc:
        raise exc.within(f".{part}") from None


def _own_type(event_type: str) -> str:
    problem = event_type_problem(event_type)
    if problem is not None:
        raise SerializationError(problem, (".events",))
    return event_type


def _within(part: str, value: object) -> Document:
    try:
        return encode(value)
    except SerializationError as exc:
        raise exc.within(f".{part}") from None


def _violations(step: Step, result: StepResult) -> list[str]:
    thresholds = step.quality_thresholds
    if thresholds is None or not result.success or result.skip_reason is not None:
        return []
    return thresholds.violations(result.quality if isinstance(result.quality, QualityMetrics) else None)


def _refused(error: str, category: ErrorCategory) -> EncodedResult:
    return EncodedResult(StepResult.fail(error, category), None, _NO_UPDATES, None)


def _plain_dataclass(output: object) -> object:
    return dataclasses.asdict(output) if _is_dataclass_value(output) else output  # type: ignore[call-overload]


def _is_dataclass_value(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
