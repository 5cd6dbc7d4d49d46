"""Whether a callable is async: settled once, when a step or pipeline is defined."""

from __future__ import annotations

import functools
import inspect


def is_async_callable(target: object) -> bool:
    """Whether calling `target` gives a coroutine: an `async def`, a partial of one, or an object with one as call."""
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
