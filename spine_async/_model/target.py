"""Where a run continues after a step: targets of jumps, and `catch`, which chooses one for a failure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from spine_async._model.failure import as_category
from spine_async._model.shown import shown

END: Final = "@end"
"""A target that ends the scope of the step, which is a map item or the run, as completed.

It can be given as `next_step`, as a target of a choice or of `catch`, and as `on_timeout` of a wait for a signal. No
step can have this name.
"""

ANY_CATEGORY: Final = "*"
"""Key of `catch` for the categories that no other key names."""


def position_of(target: str) -> str | None:
    """A target as the cursor takes it: the name of a step, or None for the end of the scope."""
    return None if target == END else target


def as_catch(given: object) -> Mapping[str, str] | None:
    """The option `catch` of a step with normalized categories; None if it catches nothing.

    Raises:
        ValueError: It is not a mapping of error categories to targets; the message names the option.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        message = f"catch is of type {type(given).__name__}; it must be a mapping of error categories to steps"
        raise ValueError(message)  # noqa: TRY004 - all invalid options raise ValueError
    catch: dict[str, str] = {}
    for key, target in given.items():
        category = key if key == ANY_CATEGORY else as_category(key)
        if category is None:
            raise ValueError(f"catch contains the key {shown(key)}; it must be an error category or {ANY_CATEGORY!r}")
        category = str(category)
        if category in catch:
            raise ValueError(f"catch names the category {category!r} twice")
        if not isinstance(target, str):
            raise ValueError(f"catch[{category!r}] is {shown(target)}; it must be the name of a step, or END")  # noqa: TRY004
        catch[category] = target
    return MappingProxyType(catch) if catch else None


def caught_by(catch: Mapping[str, str] | None, category: str | None) -> str | None:
    """The target for a failure with this category, or None if it is not caught."""
    if catch is None:
        return None
    return catch.get(category or "", catch.get(ANY_CATEGORY))
