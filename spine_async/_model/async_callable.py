"""Detects async callables."""

from __future__ import annotations

import functools
import inspect


def is_async_callable(target: object) -> bool:
    """Whether `target` is an `async def`, a partial of one, or an object with an async `__call__`."""
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)
