"""Changes stored schedules: registers them, pauses them, and stores the runs that they start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pydantic_core import from_json

from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.enqueueing import Definition, new_due_run
from spine_async._engine.start.request import prepared_params
from spine_async._engine.step.param_documents import mapping_documents
from spine_async._engine.tasks import run_shielded
from spine_async._model.document import encode, join_object
from spine_async._model.queue import Enqueued
from spine_async._model.run_row import NewRun
from spine_async._model.schedule import Schedule, iso_second
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule, timing_of
from spine_async._model.shown import shown
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError, ScheduleNotFoundError, StoreCapabilityError
from spine_async.ports import ScheduleStore, keeps_schedules

Schedules = Mapping[str, Schedule]
"""The schedules that a runner knows, by name."""


def schedule_store(runtime: Runtime) -> ScheduleStore:
    """The store, as a store of schedules.

    Raises:
        DefinitionError: The runner stores nothing.
        StoreCapabilityError: The store keeps no schedules.
    """
    if runtime.is_ephemeral:
        raise DefinitionError("this runner stores nothing, so it has no schedules; enable checkpoints")
    store = runtime.store
    if not keeps_schedules(store):
        way_out = "use the store of a database, or MemoryRunStore within a process"
        raise StoreCapabilityError(runtime.store_name, "keeps no schedules", way_out)
    return store


def checked_schedules(runtime: Runtime, given: object) -> dict[str, Schedule]:
    """The schedules of a runner by name, with params that fit their workflows.

    Raises:
        DefinitionError: They are no list of schedules, two have the same name, or the runner stores nothing.
        InvalidParamsError: Params do not fit the workflow.
        SerializationError: A param has no strict JSON form.
        StoreCapabilityError: The store keeps no schedules.
    """
    if isinstance(given, (Schedule, str)) or not isinstance(given, Iterable):
        raise DefinitionError(f"schedules is of type {type(given).__name__}; it must be a list of Schedule(…) objects")
    schedules: dict[str, Schedule] = {}
    for each in given:
        if not isinstance(each, Schedule):
            raise DefinitionError(f"{shown(each)} is no schedule; give Schedule(name, workflow, cron=…)")
        if each.name in schedules:
            raise DefinitionError(f"schedule {each.name!r} is given twice")
        text = _params_text(runtime, each)
        if isinstance(each.workflow, Workflow):
            prepared_params(runtime, each.workflow, text, each.params)
        schedules[each.name] = each
    if schedules:
        schedule_store(runtime)
    return schedules


async def register_schedules(runtime: Runtime, schedules: Sequence[Schedule]) -> None:
    """Store the definitions of the schedules."""
    now = runtime.clock.now()
    news = [
        NewSchedule(
            name=each.name,
            workflow_name=each.workflow_name,
            timing=encode(timing_of(each)).text,
            queue=each.queue_name,
            overlap=each.overlap,
            params=_params_text(runtime, each),
            registered_at=now,
        )
        for each in schedules
    ]
    await run_shielded(schedule_store(runtime).register_schedules(news), "spine_async schedules")


async def read_schedules(runtime: Runtime, names: Sequence[str] | None = None) -> list[StoredSchedule]:
    """The stored schedules with these names, or all."""
    return await run_shielded(schedule_store(runtime).schedules(names), "spine_async schedules")


async def change_schedule(
    runtime: Runtime, known: Schedules, name: str, change: Callable[[StoredSchedule], ScheduleChange]
) -> None:
    """Change a schedule; repeats it until nobody else has changed the schedule meanwhile.

    Args:
        runtime: What all runs share.
        known: The schedules that this runner knows; one that is not stored yet is registered.
        name: The schedule.
        change: The change of the stored schedule; each call must give the same run.

    Raises:
        ScheduleNotFoundError: The schedule is neither known nor stored.
        StoreCapabilityError: The store keeps no schedules.
        StoreError: The store cannot be read or written.
    """
    while True:
        stored = await stored_schedule(runtime, known, name)
        made = change(stored)
        if made.run is not None and stored.last_run_id == made.run.run_id:
            return  # an earlier attempt was committed, and its answer was lost
        if await commit_change(runtime, made):
            return


async def commit_change(runtime: Runtime, change: ScheduleChange) -> bool:
    """Make the change unless the schedule was changed since it was read; returns whether it was made."""
    is_made = await run_shielded(schedule_store(runtime).change_schedule(change), "spine_async schedules")
    if is_made:
        runtime.changes.notify(Change.WORK)
    return is_made


async def stored_schedule(runtime: Runtime, known: Schedules, name: str) -> StoredSchedule:
    """The stored schedule; one that this runner knows is registered if it is not stored.

    Raises:
        DefinitionError: The name is no text.
        ScheduleNotFoundError: The schedule is neither known nor stored.
    """
    if not isinstance(name, str):
        raise DefinitionError(f"{shown(name)} is no name of a schedule; give a string")
    if not name.isprintable():  # some stores cannot search for it
        raise ScheduleNotFoundError(name)
    found = await read_schedules(runtime, [name])
    if not found and name in known:
        await register_schedules(runtime, [known[name]])
        found = await read_schedules(runtime, [name])
    if not found:
        raise ScheduleNotFoundError(str(name))
    return found[0]


def unchanged(stored: StoredSchedule) -> ScheduleChange:
    """A change that changes nothing, from which others are made."""
    return ScheduleChange(
        name=stored.name,
        version=stored.version,
        decided_at=stored.decided_at,
        is_paused=stored.is_paused,
        waiting=stored.waiting,
    )


async def scheduled_run(
    runtime: Runtime, stored: StoredSchedule, definition: Definition, run_id: str, firing: datetime
) -> NewRun:
    """The run that a schedule starts.

    Args:
        runtime: What all runs share.
        stored: The schedule.
        definition: The workflow, or its name where it is not known.
        run_id: Id of the run.
        firing: Time of the firing, which the steps read as `context.metadata["scheduled_for"]`.

    Raises:
        InvalidParamsError: The params do not fit the workflow.
    """
    params = from_json(stored.params)
    with runtime.observer.enqueue(stored.workflow_name, stored.queue, 1) as traceparent:
        new = await new_due_run(runtime, definition, Enqueued(params=params, run_id=run_id), stored.queue, traceparent)
    metadata = {"schedule": stored.name, "scheduled_for": iso_second(firing)}
    return replace(new, started_by="schedule", metadata=encode(metadata).text)


def _params_text(runtime: Runtime, schedule: Schedule) -> str:
    given = {} if schedule.params is None else schedule.params
    return join_object(mapping_documents("params", given, runtime.config.max_value_bytes)).text
