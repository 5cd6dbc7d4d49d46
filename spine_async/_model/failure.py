"""Error categories and error texts of exceptions."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TypeGuard

from pydantic import ValidationError

from spine_async._model.naming import MAX_NAME_LENGTH, text_problem
from spine_async._model.time_option import option_seconds
from spine_async.errors import StepError, StoreUnavailableError

MAX_ERROR_LENGTH = 8_000
"""Maximum characters of a stored error text; longer texts are cut."""


class ErrorCategory(StrEnum):
    """Category of a step's failure; retry policies select by it.

    Source: `docs/errors.md`, "What a step may raise". They are stored in upper case.
    """

    TRANSIENT = "TRANSIENT"
    DATA_QUALITY = "DATA_QUALITY"
    CONFIGURATION = "CONFIGURATION"
    DEPENDENCY = "DEPENDENCY"
    INTERNAL = "INTERNAL"
    TIMEOUT = "TIMEOUT"


_PRECEDENCE = (
    ErrorCategory.CONFIGURATION,
    ErrorCategory.DATA_QUALITY,
    ErrorCategory.DEPENDENCY,
    ErrorCategory.TIMEOUT,
    ErrorCategory.TRANSIENT,
    ErrorCategory.INTERNAL,
)
"""Decides the category of an exception group with members of different categories: the first one in this order.

A category of the user's own comes before all of these. Permanent failures come before failures that a retry may fix.
INTERNAL is last, because every unclassified exception has it.
"""


def is_exception(value: object) -> TypeGuard[BaseException]:
    """Whether a value is an exception. The mock of an exception, which only claims to be one, cannot be raised."""
    return issubclass(type(value), BaseException)


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups inside it, in order; for any other exception, itself."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(reversed(each.exceptions))
        else:
            found.append(each)
    return found


def sole_leaf(error: BaseException) -> BaseException:
    """The only exception in a group, or the exception itself if it is no group or a group of several."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = leaves(error)
    return found[0] if len(found) == 1 else error


def classify(error: BaseException) -> str:
    """The category of an exception that a step raised; for a group, the most specific category of its members.

    Source: `docs/concepts.md`, "Failures, retries, timeouts".
    """
    categories = [_category(each) for each in leaves(error)]
    return min(categories, key=lambda each: _PRECEDENCE.index(each) if each in _PRECEDENCE else -1)


def retry_after(error: BaseException) -> float | None:
    """The `retry_after` of an exception: the delay before the next attempt. For a group, the longest of its members.

    The value of a `StepError` is returned unchanged. The attribute of another exception may have any meaning, so it is
    used only if it is a duration.
    """
    if isinstance(error, StepError):
        return error.retry_after
    delays = [_delay(each) for each in leaves(error)]
    return max((each for each in delays if each is not None), default=None)


def _delay(error: BaseException) -> float | None:
    try:
        return option_seconds(error.retry_after, "retry_after")  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - no such attribute, no duration, or a property of the user that raises
        return None


def as_category(value: object) -> str | None:
    """The stored form of an error category: one of `ErrorCategory`, in any case, or a text of the user's own.

    Returns:
        The text, or None if the value is not a text or cannot be a name.
    """
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str) or text_problem(value, MAX_NAME_LENGTH) is not None:
        return None
    known = str.__str__(value).upper()
    return ErrorCategory(known) if known in _KNOWN else str.__str__(value)


_KNOWN = frozenset(ErrorCategory)


def _category(error: BaseException) -> str:
    if isinstance(error, StepError):
        return as_category(error.category) or ErrorCategory.INTERNAL
    if isinstance(error, TimeoutError):
        return ErrorCategory.TIMEOUT
    if isinstance(error, (OSError, StoreUnavailableError)):
        return ErrorCategory.TRANSIENT
    if isinstance(error, ValidationError):
        return ErrorCategory.DATA_QUALITY
    return ErrorCategory.INTERNAL


def describe(error: BaseException) -> str:
    """Type and message of an exception. The text of a validation error omits the rejected values.

    A group with one member is described as that member; a group with several names them.
    """
    members = leaves(error)
    if len(members) == 1:
        return _describe(members[0])
    shown = "; ".join(_describe(each) for each in members[:_MEMBERS_SHOWN])
    rest = f"; and {len(members) - _MEMBERS_SHOWN} more" if len(members) > _MEMBERS_SHOWN else ""
    return storable_text(f"{type(error).__name__} of {len(members)}: {shown}{rest}")


_MEMBERS_SHOWN = 10


def _describe(error: BaseException) -> str:
    message = validation_problems(error) if isinstance(error, ValidationError) else _message(error)
    name = type(error).__name__
    return storable_text(f"{name}: {message}" if message else name)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:  # noqa: BLE001 - `__str__` of an exception of user code may raise anything; the type remains
        return ""


def storable_text(text: str) -> str:
    """`text` in a form that every database accepts: no NUL, no lone surrogates, cut to `MAX_ERROR_LENGTH`."""
    clean = str.__str__(text).replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= MAX_ERROR_LENGTH else clean[: MAX_ERROR_LENGTH - 1] + "…"


def validation_problems(error: ValidationError) -> str:
    """Each rejected field with its reason, without the rejected values."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    fields = (f"{'.'.join(str(part) for part in one['loc']) or '(root)'}: {one['msg']}" for one in problems)
    return f"{error.title}: " + "; ".join(fields)
