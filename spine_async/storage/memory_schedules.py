"""The schedules of the store in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from spine_async._model.run_row import NewRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule


class MemorySchedules:
    """Keeps schedules.

    Args:
        is_under_way: Whether a run is stored and has not ended, by its id.
        create: Stores a run without an owner unless its id is stored already.
    """

    def __init__(self, is_under_way: Callable[[str], bool], create: Callable[[NewRun], object]) -> None:
        self._is_under_way = is_under_way
        self._create = create
        self._stored: dict[str, StoredSchedule] = {}

    def register(self, schedules: Sequence[NewSchedule]) -> None:
        """As `ScheduleStore.register_schedules`."""
        for new in schedules:
            found = self._stored.get(new.name)
            if found is None:
                self._stored[new.name] = _first(new)
            elif found.definition != new.definition:
                self._stored[new.name] = _redefined(found, new)

    def read(self, names: Collection[str] | None) -> list[StoredSchedule]:
        """As `ScheduleStore.schedules`."""
        chosen = sorted(self._stored) if names is None else sorted(set(names) & self._stored.keys())
        return [replace(each, is_busy=self._is_busy(each)) for each in map(self._stored.__getitem__, chosen)]

    def change(self, change: ScheduleChange) -> bool:
        """As `ScheduleStore.change_schedule`."""
        found = self._stored.get(change.name)
        if found is None or found.version != change.version:
            return False
        changed = replace(
            found,
            version=found.version + 1,
            decided_at=change.decided_at,
            is_paused=change.is_paused,
            waiting=change.waiting,
        )
        if change.run is not None:
            self._create(change.run)
            changed = replace(changed, last_run_id=change.run.run_id, last_fired_at=change.fired_at)
        self._stored[change.name] = changed
        return True

    def _is_busy(self, stored: StoredSchedule) -> bool:
        return stored.last_run_id is not None and self._is_under_way(stored.last_run_id)


def _first(new: NewSchedule) -> StoredSchedule:
    return StoredSchedule(
        name=new.name,
        workflow_name=new.workflow_name,
        timing=new.timing,
        queue=new.queue,
        overlap=new.overlap,
        params=new.params,
        registered_at=new.registered_at,
        version=1,
        decided_at=new.registered_at,
        is_paused=False,
        last_run_id=None,
        last_fired_at=None,
        is_busy=False,
        waiting=(),
    )


def _redefined(found: StoredSchedule, new: NewSchedule) -> StoredSchedule:
    return replace(
        found,
        workflow_name=new.workflow_name,
        timing=new.timing,
        queue=new.queue,
        overlap=new.overlap,
        params=new.params,
        registered_at=new.registered_at,
        version=found.version + 1,
        decided_at=max(found.decided_at, new.registered_at),
    )
