"""What kind of failure an exception is, and how it is told."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ValidationError

from spine_async.errors import StepError

MAX_ERROR_LENGTH = 8_000
"""Characters of an error text that are kept; a stored row must not grow with somebody's traceback."""


class ErrorCategory(StrEnum):
    """Why a step failed; retry policies choose by it.

    Source: workflow-runner specification, "Error Categories". Upper case because that is the stored form there.
    """

    TRANSIENT = "TRANSIENT"
    DATA_QUALITY = "DATA_QUALITY"
    CONFIGURATION = "CONFIGURATION"
    DEPENDENCY = "DEPENDENCY"
    INTERNAL = "INTERNAL"
    TIMEOUT = "TIMEOUT"


def classify(error: BaseException) -> str:
    """The category of an exception that came out of a step.

    Source: public contract, "Defining a workflow".
    """
    if isinstance(error, StepError):
        return str(error.category)
    if isinstance(error, TimeoutError):
        return ErrorCategory.TIMEOUT
    if isinstance(error, OSError):
        return ErrorCategory.TRANSIENT
    if isinstance(error, ValidationError):
        return ErrorCategory.DATA_QUALITY
    return ErrorCategory.INTERNAL


def describe(error: BaseException) -> str:
    """Type and message of an exception; a validation error is told without the values it refused."""
    message = validation_problems(error) if isinstance(error, ValidationError) else _message(error)
    name = type(error).__name__
    return storable_text(f"{name}: {message}" if message else name)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception without a text is still told by its type
        return ""


def storable_text(text: str) -> str:
    """`text` as every database takes it: no NUL, no lone surrogates, of bounded length."""
    clean = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= MAX_ERROR_LENGTH else clean[: MAX_ERROR_LENGTH - 1] + "…"


def validation_problems(error: ValidationError) -> str:
    """Each refused field with its reason, never the refused value."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    told = (f"{'.'.join(str(part) for part in one['loc']) or '(root)'}: {one['msg']}" for one in problems)
    return f"{error.title}: " + "; ".join(told)
