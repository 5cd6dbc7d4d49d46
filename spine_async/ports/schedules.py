"""The capability of a store to keep schedules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeGuard

from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule


class ScheduleStore(Protocol):
    """Keeps schedules. Methods raise `StoreUnavailableError` if the store cannot be reached."""

    async def register_schedules(self, schedules: Sequence[NewSchedule]) -> None:
        """Store the definitions of schedules.

        * A new schedule has the version 1, is not paused, and has decided up to `registered_at`.
        * For a stored one with another definition, the definition is replaced. It has decided at least up to
          `registered_at` then, so that no earlier time of the new definition fires.
        * A stored one with the same definition does not change.

        The call may be repeated after a lost answer.
        """
        ...

    async def schedules(self, names: Collection[str] | None = None) -> list[StoredSchedule]:
        """The stored schedules with these names, or all; ordered by name."""
        ...

    async def change_schedule(self, change: ScheduleChange) -> bool:
        """Change a schedule, and store the run that it starts, in one transaction.

        A run whose id is stored already remains as it is; the change is made.

        Returns:
            Whether the schedule had the version of the change. If not, nothing is stored. A repeated call after a lost
            answer returns False; then `last_run_id` is the id of the run.
        """
        ...


_METHODS = ("register_schedules", "schedules", "change_schedule")


def keeps_schedules(store: object) -> TypeGuard[ScheduleStore]:
    """Whether a store has this capability."""
    return all(hasattr(store, name) for name in _METHODS)
