"""Starts the runs of schedules when they are due; part of the worker, so it has no task and no timer of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.firing import (
    Schedules,
    commit_change,
    read_schedules,
    register_schedules,
    scheduled_run,
    unchanged,
)
from spine_async._model.document import encode
from spine_async._model.schedule import Schedule
from spine_async._model.schedule_state import Decision, StoredSchedule, decide, timing_of
from spine_async._model.workflow import Workflow
from spine_async.errors import SpineError, StoreError

_RETRY_AFTER = 1.0  # seconds after an error of the store

_log = logging.getLogger("spine_async")


class ScheduleTimer:
    """Decides about the firings of schedules. Many processes may do so: the store accepts each decision once.

    Args:
        runtime: What all runs share.
        schedules: The schedules by name.
        workflows: The known workflows by name; may grow.
    """

    def __init__(self, runtime: Runtime, schedules: Schedules, workflows: Mapping[str, Workflow]) -> None:
        self._runtime = runtime
        self._schedules = schedules
        self._workflows = workflows
        self._is_registered = False
        self._look_at: datetime | None = None
        self._has_waiting = False
        self._retry_mono = -math.inf
        self._replaced: set[str] = set()

    def begin(self) -> None:
        """Register the schedules again at the next call of `fire_due`."""
        self._is_registered, self._look_at, self._replaced = False, None, set()

    async def fire_due(self) -> float:
        """Start the runs that are due; errors are logged.

        Returns:
            Seconds until the next firing.
        """
        if not self._schedules:
            return math.inf
        clock = self._runtime.clock
        if clock.monotonic() < self._retry_mono:
            return self._retry_mono - clock.monotonic()
        try:
            await self._look()
        except StoreError as exc:
            self._retry_mono = clock.monotonic() + _RETRY_AFTER
            _log.warning("schedules were not read; it will be retried: %s", exc)
        except Exception:  # noqa: BLE001 - a worker that ends would execute no further run
            self._retry_mono = clock.monotonic() + _RETRY_AFTER
            _log.exception("schedules were not read; it will be retried")
        if self._look_at is None:
            return _RETRY_AFTER
        return max(0.0, (self._look_at - clock.now()).total_seconds())

    async def _look(self) -> None:
        now = self._runtime.clock.now()
        if not self._is_registered:
            await register_schedules(self._runtime, list(self._schedules.values()))
            self._is_registered = True
        elif self._look_at is not None and now < self._look_at and not self._has_waiting:
            return
        self._look_at = None
        has_waiting, times = False, list[datetime]()
        found = await read_schedules(self._runtime, list(self._schedules))
        self._is_registered = len(found) == len(self._schedules)  # False if somebody has deleted a row
        for stored in found:
            schedule = self._schedules[stored.name]
            if self._is_replaced(schedule, stored):
                times.append(schedule.after(now))
                continue
            decision = decide(schedule, stored, now)
            if decision is not None and not await self._carry_out(schedule, stored, decision):
                times.append(now)  # somebody has changed it meanwhile, perhaps without this decision
            has_waiting = has_waiting or bool(decision.waiting if decision is not None else stored.waiting)
            times.append(schedule.after(max(now, stored.decided_at)))
        self._has_waiting, self._look_at = has_waiting, min(times, default=None)

    async def _carry_out(self, schedule: Schedule, stored: StoredSchedule, decision: Decision) -> bool:
        """Store a decision, with the run that it starts; returns False if the schedule was changed meanwhile."""
        change = replace(unchanged(stored), decided_at=decision.decided_at, waiting=decision.waiting)
        if decision.fired_at is not None:
            run_id = schedule.run_id(decision.fired_at)
            try:
                run = await scheduled_run(self._runtime, stored, self._workflow(schedule), run_id, decision.fired_at)
            except StoreError:
                raise
            except SpineError as exc:  # its firings are decided, or each round would repeat the error
                _log.error("schedule %s starts no run: %s", schedule.name, exc)
            else:
                change = replace(change, run=run, fired_at=decision.fired_at)
        is_made = await commit_change(self._runtime, change)
        if is_made and decision.skipped is not None:
            level = logging.WARNING if decision.skipped in {"missed", "full"} else logging.DEBUG
            at = decision.decided_at.isoformat()
            _log.log(level, "schedule %s starts no run for %s: %s", schedule.name, at, _REASONS[decision.skipped])
        return is_made

    def _workflow(self, schedule: Schedule) -> Workflow | str:
        return self._workflows.get(schedule.workflow_name, schedule.workflow)

    def _is_replaced(self, schedule: Schedule, stored: StoredSchedule) -> bool:
        """Whether another process has registered another definition of the schedule since; this is logged once."""
        is_same = (stored.timing, stored.overlap) == (encode(timing_of(schedule)).text, schedule.overlap)
        if not is_same and schedule.name not in self._replaced:
            self._replaced.add(schedule.name)
            _log.warning("schedule %s was redefined by another process; this process no longer fires it", schedule.name)
        return not is_same


_REASONS = {
    "missed": "no process was there, and catch_up has passed",
    "paused": "it is paused",
    "overlap": "the run of the previous firing has not ended",
    "full": "too many of its firings wait",
}
