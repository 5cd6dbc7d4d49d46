"""A request to stop a run, in the form in which it is stored with the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_COMPENSATES: Final = "\x1ecompensate\x1e"  # control characters, with which no reason begins


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request to stop a run.

    Attributes:
        reason: The `stop_reason` to record.
        compensates: Whether the finished steps are compensated.
    """

    reason: str
    compensates: bool = False

    @property
    def text(self) -> str:
        """The stored form."""
        return _COMPENSATES + self.reason if self.compensates else self.reason

    @classmethod
    def read(cls, text: str) -> StopRequest:
        """The request in its stored form."""
        return cls(text.removeprefix(_COMPENSATES), text.startswith(_COMPENSATES))
