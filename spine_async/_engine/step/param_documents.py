"""The params that a caller or a step passes to a workflow, and their documents."""

from __future__ import annotations

from collections.abc import Mapping

from spine_async._engine.step.context_variables import call_with_own_variables
from spine_async._engine.step.large_values import exceeds, size_problem
from spine_async._model.context import WorkflowContext
from spine_async._model.document import Document, encode_object
from spine_async._model.large_document import ValueTooLargeError, encode_in_pieces, is_large
from spine_async._model.workflow_step import WorkflowStep
from spine_async.errors import InvalidParamsError, SerializationError, StepError


async def given_params(step: WorkflowStep, context: WorkflowContext) -> Mapping[str, object]:
    """The `params` of a step that executes a child workflow, from its function if it has one.

    Raises:
        StepError: The function did not return a mapping; category CONFIGURATION.
    """
    given = await call_with_own_variables(step.params, context) if callable(step.params) else step.params
    if not isinstance(given, Mapping):
        problem = f"params returned a value of type {type(given).__name__}; it must return a mapping"
        raise StepError(f"step {step.name!r}: {problem}", category="CONFIGURATION")
    return given


def mapping_documents(what: str, given: object, limit: int) -> dict[str, Document]:
    """A document for each value of the mapping that a caller passed as `what`.

    Raises:
        InvalidParamsError: It is not a mapping, or one of its values has more than `limit` bytes.
        SerializationError: One of its values has no strict JSON form.
    """
    if type(given) is not dict and not isinstance(given, Mapping):
        raise InvalidParamsError(f"{what} is of type {type(given).__name__}; it must be a mapping of names to values")
    if not given:
        return {}
    try:
        documents = encode_object({key: _in_pieces(what, key, each, limit) for key, each in given.items()})
    except SerializationError as exc:
        raise exc.within(f".{what}") from None
    check_param_sizes(what, documents, limit)
    return documents


def check_param_sizes(what: str, documents: Mapping[str, Document], limit: int) -> None:
    """Check that no value has more than `limit` bytes.

    Raises:
        InvalidParamsError: One of them has more.
    """
    for key, document in documents.items():
        if exceeds(document.text, limit):
            raise InvalidParamsError(size_problem(f"{key!r} of {what}", document.size, limit))


def _in_pieces(what: str, key: object, value: object, limit: int) -> object:
    """The document of a large value; other values, and those that cannot be encoded, are left to `encode_object`."""
    if not is_large(value):
        return value
    try:
        return encode_in_pieces(value, limit)
    except ValueTooLargeError as exc:
        raise InvalidParamsError(size_problem(f"{key!r} of {what}", exc.size, limit)) from None
    except SerializationError:
        return value
