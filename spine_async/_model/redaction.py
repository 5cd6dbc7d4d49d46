"""Tracebacks without the messages of exceptions, because a message may quote values of params and outputs."""

from __future__ import annotations

import traceback

MAX_TRACEBACK_LENGTH = 16_000
"""Maximum length of a traceback in characters. The end is kept, because it shows where the error occurred."""

MAX_STORED_TRACEBACK = 4_000
"""Maximum length of a traceback that is stored with an event."""

_MAX_CHAIN = 20
"""Maximum number of exceptions of a chain, and of members of a group, that are kept."""


def redacted(error: BaseException) -> BaseException:
    """A copy of an exception for logs: its type's name, traceback, causes and group members, without any message.

    The copy has a type of its own, because many types cannot be instantiated without their arguments.
    """
    return _copy(error, set(), _MAX_CHAIN)


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception in Python's format, without any message."""
    text = "".join(traceback.format_exception(redacted(error)))
    return text if len(text) <= MAX_TRACEBACK_LENGTH else "…" + text[-MAX_TRACEBACK_LENGTH + 1 :]


def type_name(error: BaseException) -> str:
    """The full name of an exception's type: `ValueError`, `package.module.OwnError`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _copy(error: BaseException, seen: set[int], depth: int) -> BaseException:
    seen.add(id(error))
    if isinstance(error, BaseExceptionGroup):
        members = [_copy(each, seen, depth - 1) for each in error.exceptions[:_MAX_CHAIN]] if depth > 0 else []
        kind = _kind(error, BaseExceptionGroup) if members else _kind(error, Exception)
        copy = kind(f"{len(error.exceptions)} exceptions", members) if members else kind()
    else:
        copy = _kind(error, Exception)()
    copy.__traceback__ = error.__traceback__
    if depth > 0:
        copy.__cause__ = _linked(error.__cause__, seen, depth)
        copy.__context__ = _linked(error.__context__, seen, depth)
    copy.__suppress_context__ = error.__suppress_context__
    return copy


def _linked(error: BaseException | None, seen: set[int], depth: int) -> BaseException | None:
    return _copy(error, seen, depth - 1) if error is not None and id(error) not in seen else None


def _kind(error: BaseException, base: type[BaseException]) -> type[BaseException]:
    kind = type(error)
    return type(kind.__name__, (base,), {"__qualname__": kind.__qualname__, "__module__": kind.__module__})
