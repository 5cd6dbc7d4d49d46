"""A call that a step wants to execute once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OnceRequest:
    """A call that is to be executed once.

    Attributes:
        name: Its name.
        call: The function, `async def` or `def`.
        args: The arguments.
        key: What identifies the call in place of its arguments, or None.
    """

    name: str
    call: Callable[..., object]
    args: tuple[object, ...]
    key: object
