"""The stored state of schedules, and the decisions about their firings. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from spine_async._model.run_row import NewRun
from spine_async._model.schedule import Schedule

ON_TIME = 10.0
"""Seconds. A firing that is late by at most this time was not missed, whatever `catch_up` is."""

MAX_WAITING = 1_000
"""Maximum number of waiting firings of a schedule with `overlap="queue"`; further ones are skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSchedule:
    """The definition of a schedule, as it is stored.

    Attributes:
        timing: `cron` and `timezone`, or `every` in seconds, as JSON object text.
        params: Params of the runs as JSON object text.
        registered_at: The time; a new schedule fires only after it.
    """

    name: str
    workflow_name: str
    timing: str
    queue: str
    overlap: str
    params: str
    registered_at: datetime

    @property
    def definition(self) -> tuple[str, ...]:
        """What distinguishes it from an earlier definition."""
        return self.workflow_name, self.timing, self.queue, self.overlap, self.params


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """A schedule in the store.

    Attributes:
        version: Increases with each change.
        decided_at: No firing up to this time starts a run any more.
        is_paused: Whether its firings start no runs.
        last_run_id: Id of the run that it started last, or None.
        last_fired_at: Time of the firing that started this run, or None.
        is_busy: Whether this run has not ended.
        waiting: The firings that start runs after this one has ended, in order.
    """

    name: str
    workflow_name: str
    timing: str
    queue: str
    overlap: str
    params: str
    registered_at: datetime
    version: int
    decided_at: datetime
    is_paused: bool
    last_run_id: str | None
    last_fired_at: datetime | None
    is_busy: bool
    waiting: tuple[datetime, ...]

    @property
    def definition(self) -> tuple[str, ...]:
        """As `NewSchedule.definition`."""
        return self.workflow_name, self.timing, self.queue, self.overlap, self.params


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChange:
    """A change of a stored schedule, which is made only if nobody has changed it since it was read.

    Attributes:
        name: The schedule.
        version: Its version when it was read.
        decided_at: As in `StoredSchedule`, like `is_paused` and `waiting`.
        run: The run that it starts, which is stored in the same transaction; None for none.
        fired_at: Time of the firing that starts this run.
    """

    name: str
    version: int
    decided_at: datetime
    is_paused: bool
    waiting: tuple[datetime, ...]
    run: NewRun | None = None
    fired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about the firings of a schedule up to now.

    Attributes:
        decided_at: The last firing that is decided.
        waiting: The firings that wait.
        fired_at: The firing that starts a run now, or None.
        skipped: Why the last firing starts no run: `missed`, `paused`, `overlap`, `full`; or None.
    """

    decided_at: datetime
    waiting: tuple[datetime, ...]
    fired_at: datetime | None = None
    skipped: str | None = None


def decide(schedule: Schedule, stored: StoredSchedule, now: datetime) -> Decision | None:
    """Decide about the firings that have passed; None if there is nothing to decide.

    Of the firings since the last decision only the latest counts. At most one firing starts a run.
    """
    due = schedule.latest(stored.decided_at, now)
    waiting, fired, skipped = stored.waiting, None, None
    if due is not None:
        skipped = _obstacle(schedule, stored, due, now)
        if skipped is None and schedule.overlap == "queue" and (stored.is_busy or waiting):
            waiting = (*waiting, due)
        elif skipped is None:
            fired = due
    if fired is None and waiting and not stored.is_busy and not stored.is_paused:
        fired, waiting = waiting[0], waiting[1:]
    if due is None and fired is None:
        return None
    return Decision(stored.decided_at if due is None else due, waiting, fired, skipped)


def _obstacle(schedule: Schedule, stored: StoredSchedule, due: datetime, now: datetime) -> str | None:
    """Why a firing starts no run, or None."""
    if now - due > timedelta(seconds=max(schedule.catch_up_seconds, ON_TIME)):
        return "missed"
    if stored.is_paused:
        return "paused"
    if schedule.overlap == "skip" and stored.is_busy:
        return "overlap"
    return "full" if schedule.overlap == "queue" and len(stored.waiting) >= MAX_WAITING else None


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """A stored schedule, as `list_schedules` returns it. Times are aware, in UTC.

    Attributes:
        cron: Its cron expression, or None.
        every: Seconds from one firing to the next, or None.
        timezone: Name of the time zone of `cron`.
        is_paused: Whether its firings start no runs.
        next_at: The next firing; None if it is paused, or if its time zone is not installed here.
        last_run_id: Id of the run that it started last, or None.
        last_fired_at: Time of the firing that started this run, or None.
        waiting: How many firings wait until earlier runs have ended (`overlap="queue"`).
    """

    name: str
    workflow_name: str
    cron: str | None
    every: float | None
    timezone: str
    queue: str
    overlap: str
    is_paused: bool
    next_at: datetime | None
    last_run_id: str | None
    last_fired_at: datetime | None
    waiting: int


def timing_of(schedule: Schedule) -> Mapping[str, object]:
    """The times of a schedule, to be stored."""
    if schedule.cron is not None:
        return {"cron": schedule.cron, "timezone": schedule.timezone}
    return {"every": schedule.every_seconds}
