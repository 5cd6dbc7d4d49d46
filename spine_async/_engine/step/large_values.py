"""Encodes the result of a step: small values at once, large ones on a worker thread; refuses values that are too large.

If all values of a result are small, they are encoded directly. `is_large` decides in bounded time whether a value is
large. The values of a result with a large value are encoded on a thread, in pieces, so that the event loop keeps
running. If another task or thread changes a value at that time, each part of the document has its old or its new
state, or the step fails. Every reader sees the same document.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import replace

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.scope import Scope
from spine_async._engine.step.encoding import EncodedResult, encode_result, raised_failure
from spine_async._model.document import Document, quote
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.large_document import ValueTooLargeError, encode_in_pieces, is_large
from spine_async._model.limits import MAX_RECORD_BYTES
from spine_async._model.map_step import MapStep
from spine_async._model.step import Step
from spine_async._model.step_result import StepEvent, StepResult
from spine_async.errors import SerializationError


def is_small(result: StepResult) -> bool:
    """Whether it takes little time to encode the values of a result."""
    if is_large(result.output):
        return False
    if result.context_updates and is_large(result.context_updates):
        return False
    if result.append is not None and is_large(result.append):
        return False
    return not result.events or not is_large([getattr(each, "metadata", each) for each in result.events])


def encode_small(runtime: Runtime, step: Step, result: StepResult) -> EncodedResult:
    """Encode the values of a small result as `encode_result` does; returns a failure if one of them is too large.

    Validators and serializers of user code run in a copy of the current context, as handlers do.
    """
    is_checked = not (runtime.is_dry and runtime.pretends(step))
    try:
        encoded = copy_context().run(encode_result, step, result, is_checked=is_checked)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:  # noqa: BLE001 - validators and values are user code, and nothing is awaited
        return _raised(step, result, exc)
    problem = _problem(encoded, runtime.max_value_bytes)
    return encoded if problem is None else _refused(step, result, problem)


async def encode_large(runtime: Runtime, step: Step, result: StepResult) -> EncodedResult:
    """As `encode_small`, on a worker thread.

    Cancellation:
        Takes effect at once; the thread's result is discarded.
    """
    limit, is_checked = runtime.max_value_bytes, not runtime.pretends(step)
    return await runtime.run_on_thread(_encode_large, step, result, limit, is_checked=is_checked)


def item_problem(scope: Scope, limit: int) -> str | None:
    """Why the item of a map is too large, or None."""
    text, parent = scope.item_params, scope.parent
    if text is None or parent is None or len(text) * 4 <= limit:
        return None
    param = parent.step.item_param if isinstance(parent.step, MapStep) else ""
    size = Document(text).size - len(quote(param)) - len("{:}")
    if size <= limit:
        return None
    return size_problem(f"item {scope.item_index} of map {parent.step.name!r}", size, limit)


def exceeds(text: str, limit: int) -> bool:
    """Whether the text has more than `limit` bytes in UTF-8; counts the bytes only if `len` does not decide it."""
    characters = len(text)
    if characters * 4 <= limit:
        return False
    return characters > limit or Document(text).size > limit


def size_problem(what: str, size: int, limit: int) -> str:
    """Text for a value that is too large."""
    return (
        f"{what} has {size:,} bytes as JSON, more than max_value_bytes ({limit:,}); "
        "store large data elsewhere and return a reference to it, or raise max_value_bytes"
    )


def _encode_large(step: Step, result: StepResult, limit: int, *, is_checked: bool) -> EncodedResult:
    """Encode the large values in pieces, then the result with their documents; runs on a worker thread."""
    try:
        parts = _in_pieces(step, result, limit)
        encoded = encode_result(step, parts, is_checked=is_checked)
    except _TooLargeError as exc:
        return _refused(step, result, str(exc))
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:  # noqa: BLE001 - validators and values are user code, and nothing is awaited
        if isinstance(exc, RuntimeError) and "during iteration" in str(exc):
            return _refused(step, result, "it was changed while it was being encoded", "that cannot be stored")
        return _raised(step, result, exc)
    if encoded.result is parts:
        encoded.result = result  # middleware receives the values, not the documents
    problem = _problem(encoded, limit)
    return encoded if problem is None else _refused(step, result, problem)


def _in_pieces(step: Step, result: StepResult, limit: int) -> StepResult:
    """The result with documents in place of its large values, except those that a model must validate."""
    parts: dict[str, object] = {}
    is_validated = step.output_model is not None and result.success and result.skip_reason is None
    if not is_validated:
        parts["output"] = _document("its output", result.output, limit)
    updates, events, append = result.context_updates, result.events, result.append
    if isinstance(append, Mapping):
        parts["append"] = {key: _document(_appended(key), each, limit) for key, each in append.items()}
    if isinstance(updates, Mapping):
        parts["context_updates"] = {
            key: _document(f"its update of param {key!r}", each, limit) for key, each in updates.items()
        }
    if isinstance(events, tuple):
        parts["events"] = tuple(_event(each, limit) for each in events)
    return replace(result, **parts)  # type: ignore[arg-type]


def _appended(key: str) -> str:
    return f"what it appends to param {key!r}"


def _event(event: StepEvent, limit: int) -> StepEvent:
    if not isinstance(event, StepEvent):
        return event
    metadata = _document(f"its event {event.event_type!r}", event.metadata, limit)
    return replace(event, metadata=metadata)  # type: ignore[arg-type]


def _document(what: str, value: object, limit: int) -> object:
    """The document of a large value; other values, and those that cannot be encoded, are left to `encode_result`."""
    if not is_large(value):
        return value
    try:
        return encode_in_pieces(value, limit)
    except ValueTooLargeError as exc:
        raise _TooLargeError(size_problem(what, exc.size, limit)) from None
    except SerializationError:
        return value


def _problem(encoded: EncodedResult, limit: int) -> str | None:
    """Which value of the result is too large, or None."""
    output = encoded.output
    if output is not None and len(output.text) * 4 > limit and exceeds(output.text, limit):
        return size_problem("its output", output.size, limit)
    if not encoded.updates and not encoded.events and encoded.quality is None and encoded.appends is None:
        return None
    total = len(output.text) if output is not None else 0
    changes = [(f"its update of param {key!r}", each) for key, each in encoded.updates.items()]
    changes += [(_appended(key), each) for key, each in (encoded.appends or {}).items()]
    for what, document in changes:
        if exceeds(document.text, limit):
            return size_problem(what, document.size, limit)
        total += len(document.text)
    for kind, metadata in encoded.events:
        if exceeds(metadata, limit):
            return size_problem(f"its event {kind!r}", Document(metadata).size, limit)
        total += len(metadata)
    if encoded.quality is not None and exceeds(encoded.quality.text, limit):
        return size_problem("its quality metrics", encoded.quality.size, limit)
    if total > MAX_RECORD_BYTES:
        return f"the values that it returned have {total:,} characters as JSON; at most {MAX_RECORD_BYTES:,} are stored"
    return None


def _raised(step: Step, result: StepResult, error: BaseException) -> EncodedResult:
    """What is left of a result whose values raised `error` while they were encoded."""
    if result.success:
        failure = raised_failure(step, error)
        problem = f"step {step.name!r} returned a value that cannot be stored: {failure.error}"
        result = replace(failure, error=storable_text(problem))
    return EncodedResult(result, None, {}, None)


def _refused(step: Step, result: StepResult, problem: str, kind: str = "that is too large") -> EncodedResult:
    if result.success:
        result = StepResult.fail(f"step {step.name!r} returned a value {kind}: {problem}", ErrorCategory.INTERNAL)
    return EncodedResult(result, None, {}, None)  # a failure keeps its error and loses its values


class _TooLargeError(Exception):
    """A part of a result is too large; the message names it."""
