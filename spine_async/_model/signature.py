"""Checks of user functions when a definition is built: callable, and with the right number of parameters."""

from __future__ import annotations

import inspect

from spine_async._model.shown import shown

_ARGUMENTS = {
    "handler": ("context", "config"),
    "transaction": ("context", "config", "connection"),
    "compensate": ("context", "config"),
    "condition": ("context",),
    "items": ("context",),
    "params": ("context",),
    "until": ("context",),
    "max_concurrency": ("context",),
    "pipeline": ("params",),
    "middleware": ("step", "context", "next_fn"),
    "retryable_errors": ("error",),
}


def check_callable(option: str, value: object) -> None:
    """Check that the function given as `option` is callable with the arguments of that option.

    Raises:
        ValueError: It is not; the message shows the parameters that it has.
    """
    if not callable(value):
        raise ValueError(f"{option} is {shown(value)}; it must be callable")  # noqa: TRY004 - as for every invalid option
    arguments = _ARGUMENTS[option]
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some callables written in C have no signature
        return
    try:
        signature.bind(*arguments)
    except TypeError as exc:
        wanted = f"({', '.join(arguments)})"
        name = function_name(value)
        raise ValueError(
            f"{option} {name}{signature} cannot be called with {len(arguments)} positional arguments {wanted}: {exc}"
        ) from None


def function_name(function: object) -> str:
    """Name of a function for messages."""
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__name__
