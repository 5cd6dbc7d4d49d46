"""The columns that say when a run without an owner may be claimed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from spine_async._model.run_row import DueTime
from spine_async._model.turn import STARTED_BEFORE

DUE_COLUMNS = ("due_at", "due_boot", "due_seconds", "ready", "turn")


@dataclass(frozen=True, slots=True)
class DueColumns:
    """Values of `DUE_COLUMNS`.

    Attributes:
        at: When the run may be claimed, or None.
        boot: The boot during which `seconds` counts instead of `at`, or None.
        seconds: Reading of the boot clock from which the run may be claimed.
        is_ready: Whether the run may be claimed now.
        turn: Orders the ready runs of one priority; None if the run is not due at a known time.
    """

    at: datetime | None = None
    boot: str | None = None
    seconds: float | None = None
    is_ready: bool = False
    turn: float | None = None

    def values(self, timestamp: Callable[[datetime], object], flag: type[int]) -> tuple[object, ...]:
        """The values in the order of `DUE_COLUMNS`; `flag` converts booleans: `int` for SQLite, else `bool`."""
        return (
            timestamp(self.at) if self.at is not None else None,
            self.boot,
            self.seconds,
            flag(self.is_ready),
            self.turn,
        )


HELD = DueColumns()
"""Those of a run that has an owner, has ended, or becomes due only by a message or an explicit claim."""


def turn_at(at: datetime, *, was_started: bool) -> float:
    """The turn of a run that becomes ready at that time."""
    return at.timestamp() + (STARTED_BEFORE if was_started else 0.0)


def due_columns(due: DueTime, now: datetime, boot: str, boot_seconds: float, *, was_started: bool) -> DueColumns:
    """The values for a run that has no owner.

    Args:
        due: When it may be claimed.
        now: The time.
        boot: Identifier of the current boot.
        boot_seconds: Reading of the boot clock.
        was_started: Whether the run was claimed before.
    """
    turn = turn_at(due.at, was_started=was_started)
    if due.seconds is None:
        return DueColumns(due.at, is_ready=due.at <= now, turn=turn)
    if due.seconds <= 0:
        return DueColumns(due.at, is_ready=True, turn=turn)
    return DueColumns(due.at, boot, boot_seconds + due.seconds, turn=turn)
