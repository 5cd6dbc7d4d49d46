"""What an acknowledged commit outlasts."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from spine_async.errors import DefinitionError

Durability: TypeAlias = Literal["full", "process"]
"""`full`: the machine losing power. `process`: the process being killed, and no more than that."""

_CHOICES = get_args(Durability)


def check_durability(durability: Durability) -> Durability:
    """The durability, if it is one.

    Raises:
        DefinitionError: It is not.
    """
    if durability not in _CHOICES:
        raise DefinitionError(f"durability is {durability!r}; it must be {' or '.join(map(repr, _CHOICES))}")
    return durability
