"""What is sent to a worker and back: JSON texts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from spine_async._model.document import encode, join_object
from spine_async._model.failure import ErrorCategory, describe
from spine_async._model.large_document import encode_in_pieces, is_large
from spine_async._model.progress import Progress
from spine_async._model.step_result import StepEvent, StepResult
from spine_async.dispatch.dask.errors import exception_document, exception_from
from spine_async.errors import SerializationError

LARGE_TEXT = 400_000
"""Characters of a text from which on it is decoded in a thread."""

_MOST_BYTES = 2**31  # what a step may return is limited by `max_value_bytes`, where it arrives


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt of a pipeline, as a worker gets it.

    Attributes:
        pipeline: Name of the pipeline.
        registry: `module:attribute` of the registry of pipelines, or None.
        run_id: Id of the run.
        step_name: Name of the step.
        attempt: Number of the attempt.
        idempotency_key: Key of the visit of the step.
        last_progress: The latest progress of the visit, or None.
        trace_context: Headers of the trace context.
        params: Params of the pipeline.
    """

    pipeline: str
    registry: str | None
    run_id: str
    step_name: str | None
    attempt: int
    idempotency_key: str | None
    last_progress: Progress | None
    trace_context: Mapping[str, str]
    params: Mapping[str, object]

    def encoded(self) -> tuple[str, str]:
        """The text, and a digest of the visit and of what it executes, which all attempts of the visit share.

        Belongs into a thread if the params are large.

        Raises:
            SerializationError: The params have no strict JSON form.
        """
        names = [each.name for each in dataclasses.fields(self) if each.name not in ("params", "last_progress")]
        rest = {name: getattr(self, name) for name in names}
        rest["last_progress"] = _progress_values(self.last_progress)
        params = encode_in_pieces(self.params, _MOST_BYTES) if is_large(self.params) else encode(self.params)
        digest = hashlib.sha256(encode([self.idempotency_key, self.pipeline, self.registry]).text.encode())
        digest.update(params.text.encode())
        return join_object({"rest": encode(rest), "params": params}).text, digest.hexdigest()[:32]

    @classmethod
    def from_json(cls, text: str) -> Task:
        """The task of a text."""
        read: dict[str, Any] = from_json(text)
        rest = read["rest"]
        return cls(**{**rest, "last_progress": as_progress(rest["last_progress"])}, params=read["params"])


def as_progress(values: Any) -> Progress | None:
    """The progress of `[done, total, message]`; None of None."""
    return Progress(*values) if values is not None else None


def returned_text(pipeline: str, returned: object, progress: Progress | None) -> str:
    """The text for what a pipeline returned."""
    if isinstance(returned, StepResult):
        result = returned
    elif returned is None or isinstance(returned, (Mapping, BaseModel)) or _is_dataclass_value(returned):
        result = StepResult.ok(returned)
    else:
        problem = (
            f"pipeline {pipeline!r} returned a value of type {type(returned).__name__}; "
            "it must return a StepResult, a mapping, a pydantic model, a dataclass or None"
        )
        result = StepResult.fail(problem, ErrorCategory.CONFIGURATION)
    return result_text(pipeline, result, progress)


def result_text(pipeline: str, result: StepResult, progress: Progress | None) -> str:
    """The text for the result of a pipeline; a failure if it has no strict JSON form."""
    try:
        return _result_text(result, progress)
    except SerializationError as exc:
        if result.success:
            error = f"pipeline {pipeline!r} returned a value that cannot be stored: {exc}"
            return _result_text(StepResult.fail(error), progress)
        # The reason of the failure matters more than its output.
        bare = StepResult.fail(str(result.error), str(result.category or ErrorCategory.INTERNAL))
        return _result_text(replace(bare, exception=result.exception), progress)


def read_result(text: str) -> tuple[StepResult, Progress | None]:
    """The result and the last progress of a text. Belongs into a thread if the text is large."""
    read: dict[str, Any] = from_json(text)
    fields = read["fields"]
    exception = fields["exception"]
    result = StepResult(
        **{
            **fields,
            "output": read["output"],
            "events": tuple(StepEvent(*each) for each in fields["events"]),
            "exception": exception_from(exception) if exception is not None else None,
        }
    )
    return result, as_progress(read["progress"])


def _result_text(result: StepResult, progress: Progress | None) -> str:
    error: object = result.error
    fields = {
        "success": result.success,
        "context_updates": result.context_updates,
        "append": result.append,
        "quality": result.quality,
        "events": [[each.event_type, each.metadata] for each in result.events],
        "error": describe(error) if isinstance(error, BaseException) else error,
        "category": result.category,
        "retry_after": result.retry_after,
        "skip_reason": result.skip_reason,
        "stop_reason": result.stop_reason,
        "exception": exception_document(result.exception) if result.exception is not None else None,
    }
    output = encode_in_pieces(result.output, _MOST_BYTES) if is_large(result.output) else encode(result.output)
    parts = {"fields": encode(fields), "output": output, "progress": encode(_progress_values(progress))}
    return join_object(parts).text


def _progress_values(progress: Progress | None) -> list[object] | None:
    return [progress.done, progress.total, progress.message] if progress is not None else None


def _is_dataclass_value(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
