"""The part of a runner that manages schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.start.firing import change_schedule, read_schedules, scheduled_run, stored_schedule, unchanged
from spine_async._model.schedule import Schedule
from spine_async._model.schedule_state import ScheduleChange, ScheduleRecord, StoredSchedule
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError
from spine_async.handle import RunHandle


class ScheduleManager:
    """Lists, pauses and triggers the schedules of a store."""

    _runtime: Runtime
    _active_runs: ActiveRuns
    _workflows: dict[str, Workflow]
    _schedules: Mapping[str, Schedule]

    if TYPE_CHECKING:

        def handle(self, run_id: str) -> RunHandle: ...

    async def list_schedules(self) -> list[ScheduleRecord]:
        """The stored schedules of all processes, ordered by name.

        A schedule is stored when a working runner that knows it is entered, and stays stored.

        Raises:
            StoreCapabilityError: The store keeps no schedules.
            StoreError: The store cannot be read.
        """
        async with self._active_runs.session():
            stored = await read_schedules(self._runtime)
            # On a thread, because a time zone is read from a file.
            return await self._runtime.run_on_thread(_records, stored, self._runtime.clock.now())

    async def pause_schedule(self, name: str) -> None:
        """Let the firings of a schedule start no runs, in any process, until `resume_schedule`.

        Runs that it has started continue.

        Raises:
            ScheduleNotFoundError: No such schedule is known here or stored.
            StoreCapabilityError: The store keeps no schedules.
            StoreError: The store cannot be written.
        """
        async with self._active_runs.session():
            await change_schedule(
                self._runtime, self._schedules, name, lambda stored: replace(unchanged(stored), is_paused=True)
            )

    async def resume_schedule(self, name: str) -> None:
        """Let the firings of a paused schedule start runs again. Those that have passed meanwhile are not made up for.

        Raises:
            ScheduleNotFoundError: No such schedule is known here or stored.
            StoreCapabilityError: The store keeps no schedules.
            StoreError: The store cannot be written.
        """
        now = self._runtime.clock.now()

        def resumed(stored: StoredSchedule) -> ScheduleChange:
            change = replace(unchanged(stored), is_paused=False)
            return replace(change, decided_at=max(stored.decided_at, now)) if stored.is_paused else change

        async with self._active_runs.session():
            await change_schedule(self._runtime, self._schedules, name, resumed)

    async def trigger_schedule(self, name: str) -> RunHandle:
        """Start a run of a schedule now, whatever its times and its `overlap` are, and also if it is paused.

        The run has the present time in its id. For later firings it is the run of the previous firing.

        Raises:
            ScheduleNotFoundError: No such schedule is known here or stored.
            InvalidParamsError: The params of the schedule do not fit its workflow.
            StoreCapabilityError: The store keeps no schedules.
            StoreError: The store cannot be written.
        """
        now = self._runtime.clock.now()
        run_id = f"{name}@{now.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
        async with self._active_runs.session():
            stored = await stored_schedule(self._runtime, self._schedules, name)
            given = self._schedules.get(name)
            definition = self._workflows.get(stored.workflow_name, given.workflow if given else stored.workflow_name)
            run = await scheduled_run(self._runtime, stored, definition, run_id, now)
            await change_schedule(
                self._runtime, self._schedules, name, lambda stored: replace(unchanged(stored), run=run, fired_at=now)
            )
        return self.handle(run_id)


def _records(stored: Iterable[StoredSchedule], now: datetime) -> list[ScheduleRecord]:
    return [_record(each, now) for each in stored]


def _record(stored: StoredSchedule, now: datetime) -> ScheduleRecord:
    timing = from_json(stored.timing)
    return ScheduleRecord(
        name=stored.name,
        workflow_name=stored.workflow_name,
        cron=timing.get("cron"),
        every=timing.get("every"),
        timezone=timing.get("timezone", "UTC"),
        queue=stored.queue,
        overlap=stored.overlap,
        is_paused=stored.is_paused,
        next_at=None if stored.is_paused else _next_at(stored, timing, now),
        last_run_id=stored.last_run_id,
        last_fired_at=stored.last_fired_at,
        waiting=len(stored.waiting),
    )


def _next_at(stored: StoredSchedule, timing: Mapping[str, Any], now: datetime) -> datetime | None:
    try:
        return Schedule(stored.name, stored.workflow_name, **timing).after(max(now, stored.decided_at))
    except DefinitionError:  # another process has a time zone that is not installed here
        return None
