"""Exceptions as JSON: their types, texts and tracebacks, without pickled objects.

The exception that is rebuilt has a type of its own, which is derived from the nearest type of the original that this
process has imported. So policies that retry by type, such as `retryable_errors=ConnectionError`, work as for a pipeline
in this process, and no module is imported because a worker names it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pydantic import ValidationError
from tblib import Traceback

from spine_async._model.failure import validation_problems

_MAX_CHAIN = 20
"""Maximum number of exceptions of a chain, and of members of a group, that are kept."""

_MAX_FRAMES = 100
"""Maximum number of frames of a traceback. The last ones are kept, because they show where the error occurred."""

JsonObject = Mapping[str, Any]


def exception_document(error: BaseException, depth: int = _MAX_CHAIN) -> dict[str, Any]:
    """An exception as JSON values.

    Returns:
        `{"types": [[module, qualified name], …], "text": str, "frames": [[file, module, function, line], …], "cause":
        {…} | None, "context": {…} | None, "suppress_context": bool, "members": [{…}, …] | None, "category": str | None,
        "retry_after": float | None}`; the types are those of its class and of the base classes, in order.
    """
    kinds = type(error).__mro__
    linked = depth > 0
    cause, context = error.__cause__, error.__context__
    members = error.exceptions if linked and isinstance(error, BaseExceptionGroup) else ()
    return {
        "types": [[each.__module__, each.__qualname__] for each in kinds if issubclass(each, BaseException)],
        "text": _text(error),
        "frames": _frames(error.__traceback__),
        "cause": exception_document(cause, depth - 1) if linked and cause is not None else None,
        "context": exception_document(context, depth - 1) if linked and context is not None and not cause else None,
        "suppress_context": error.__suppress_context__,
        "members": [exception_document(each, depth - 1) for each in members[:_MAX_CHAIN]] if members else None,
        **{name: _plain(getattr(error, name, None)) for name in ("category", "retry_after")},
    }


def exception_from(document: JsonObject) -> BaseException:
    """The exception of a document."""
    error = _group(document) if document["members"] else _single(document)
    error.__traceback__ = _traceback(document["frames"])
    error.__cause__ = exception_from(document["cause"]) if document["cause"] else None
    error.__context__ = exception_from(document["context"]) if document["context"] else None
    error.__suppress_context__ = document["suppress_context"]
    return error


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return str(error.message)
    try:
        return validation_problems(error) if isinstance(error, ValidationError) else str(error)
    except Exception:  # noqa: BLE001 - `__str__` of an exception of user code may raise anything
        return ""


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int, float)) else None


def _group(document: JsonObject) -> BaseException:
    members = [exception_from(each) for each in document["members"]]
    return BaseExceptionGroup(document["text"], members)


def _single(document: JsonObject) -> BaseException:
    bases = [found for found in map(_imported, document["types"]) if found is not None]
    error = next(made for made in (_made(document, base) for base in (*bases, Exception)) if made is not None)
    for attribute in ("category", "retry_after"):
        if document[attribute] is not None or hasattr(error, attribute):
            error.__dict__[attribute] = document[attribute]
    return error


def _made(document: JsonObject, base: type[Exception]) -> Exception | None:
    """An exception derived from this class; None if it cannot be made without the arguments of its constructor."""
    text: str = document["text"]
    module, name = document["types"][0]
    members = {"__module__": module, "__qualname__": name, "__str__": lambda _: text}
    try:
        kind: type[Exception] = type(name.rpartition(".")[2], (base,), members)
        error: Exception = kind.__new__(kind, text)
        error.args = (text,)
    except Exception:  # noqa: BLE001 - the class may be final, or need other arguments
        return None
    return error


def _imported(name: list[str]) -> type[Exception] | None:
    """The class of exceptions with this name, if this process has imported its module."""
    found: object = sys.modules.get(name[0])
    for part in name[1].split("."):
        found = getattr(found, part, None)
    is_usable = isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, BaseExceptionGroup)
    return found if is_usable else None  # type: ignore[return-value]


def _frames(trace: TracebackType | None) -> list[list[object]]:
    frames = [
        [frame.f_code.co_filename, frame.f_globals.get("__name__", ""), frame.f_code.co_name, line]
        for frame, line in traceback.walk_tb(trace)
    ]
    return frames[-_MAX_FRAMES:]


def _traceback(frames: list[list[Any]]) -> TracebackType | None:
    nested: dict[str, Any] | None = None
    for file, module, function, line in reversed(frames):
        frame = {
            "f_globals": {"__file__": file, "__name__": module},
            "f_code": {"co_filename": file, "co_name": function},
            "f_lineno": line,
        }
        nested = {"tb_frame": frame, "tb_lineno": line, "tb_next": nested}
    return Traceback.from_dict(nested).as_traceback() if nested is not None else None
