"""Durability levels of a commit."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from spine_async._model.shown import shown
from spine_async.errors import DefinitionError

Durability: TypeAlias = Literal["full", "process"]
"""The failures that a commit survives. `full`: also a power failure. `process`: only the end of the process."""

_CHOICES = get_args(Durability)


def check_durability(durability: Durability) -> Durability:
    """Check and return `durability`.

    Raises:
        DefinitionError: It is not one of the two levels.
    """
    if durability not in _CHOICES:
        raise DefinitionError(f"durability is {shown(durability)}; it must be {' or '.join(map(repr, _CHOICES))}")
    return durability
