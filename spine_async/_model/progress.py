"""How far a step has come."""

from __future__ import annotations

from dataclasses import dataclass

from spine_async._model.shown import shown
from spine_async.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step has come, as it reported with `context.progress`.

    Attributes:
        done: How much is done, in a unit of the step's choice.
        total: How much there is to do, or None if that is not known.
        message: A text for people, or None.

    Raises:
        DefinitionError: A number is no finite number of at least 0, or the message is no text.
    """

    done: float
    total: float | None = None
    message: str | None = None

    def __post_init__(self) -> None:
        if not _is_amount(self.done):
            raise DefinitionError(f"progress: done is {shown(self.done)}; {_WANTED}")
        if self.total is not None and not _is_amount(self.total):
            raise DefinitionError(f"progress: total is {shown(self.total)}; {_WANTED}")
        if self.message is not None and not isinstance(self.message, str):
            raise DefinitionError(f"progress: message is of type {type(self.message).__name__}; it must be a text")


_WANTED = "it must be a finite number of at least 0"


def _is_amount(value: object) -> bool:
    """Whether it is a number that can be stored; an integer of more than 64 bits would be no amount of anything."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST


_MOST = 2.0**64
