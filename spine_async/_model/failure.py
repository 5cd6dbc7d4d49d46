"""Error categories and error texts of exceptions."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ValidationError

from spine_async.errors import StepError

MAX_ERROR_LENGTH = 8_000
"""Maximum characters of a stored error text; longer texts are cut."""


class ErrorCategory(StrEnum):
    """Category of a step's failure; retry policies select by it.

    Source: workflow-runner specification, "Error Categories". The specification stores them in upper case.
    """

    TRANSIENT = "TRANSIENT"
    DATA_QUALITY = "DATA_QUALITY"
    CONFIGURATION = "CONFIGURATION"
    DEPENDENCY = "DEPENDENCY"
    INTERNAL = "INTERNAL"
    TIMEOUT = "TIMEOUT"


def classify(error: BaseException) -> str:
    """The category of an exception that a step raised.

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
    """Type and message of an exception. The text of a validation error omits the rejected values."""
    message = validation_problems(error) if isinstance(error, ValidationError) else _message(error)
    name = type(error).__name__
    return storable_text(f"{name}: {message}" if message else name)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - `__str__` of a foreign exception may raise anything; the type remains
        return ""


def storable_text(text: str) -> str:
    """`text` in a form that every database accepts: no NUL, no lone surrogates, cut to `MAX_ERROR_LENGTH`."""
    clean = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= MAX_ERROR_LENGTH else clean[: MAX_ERROR_LENGTH - 1] + "…"


def validation_problems(error: ValidationError) -> str:
    """Each rejected field with its reason, without the rejected values."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    fields = (f"{'.'.join(str(part) for part in one['loc']) or '(root)'}: {one['msg']}" for one in problems)
    return f"{error.title}: " + "; ".join(fields)
