"""Stores runs that any working runner executes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from spine_async._engine.commit.creation import Creation
from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.request import Request, prepare_run, unknown_run
from spine_async._engine.start.stored_run import check_same, find
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._model.naming import check_run_id
from spine_async._model.queue import Enqueued, check_key, check_priority, check_queue_name, due_time, expiry
from spine_async._model.run_row import NewRun
from spine_async._model.shown import shown
from spine_async._model.workflow import Workflow
from spine_async.errors import DefinitionError, RunNotFoundError, StoreCapabilityError
from spine_async.ports import writes_within

Definition: TypeAlias = Workflow | str


async def enqueue_runs(
    runtime: Runtime, definition: Definition, runs: Sequence[Enqueued], queue: str, connection: object
) -> list[str]:
    """Store due runs; returns their ids. A stored id is accepted if it belongs to the same request.

    Args:
        runtime: What all runs share.
        definition: The workflow, or its name where it is not known.
        runs: The runs.
        queue: Name of the queue.
        connection: The caller's own connection or session, in whose transaction the runs are stored; None stores them
            at once.

    Raises:
        DefinitionError: An option is invalid, or the params do not fit the workflow (`InvalidParamsError`).
        RunConflictError: An id belongs to a run with other params or of another workflow.
        StoreCapabilityError: The store keeps no queues, or cannot store runs in a transaction of the caller.
        StoreError: The store cannot be written.
    """
    if not isinstance(definition, (Workflow, str)):
        raise DefinitionError(f"{shown(definition)} is not a workflow; give a Workflow, or the name of one")
    if runtime.is_ephemeral:
        raise DefinitionError("this runner stores nothing, so it cannot enqueue a run; enable checkpoints")
    if not runtime.keeps_queues:
        way_out = "use a database, or execute the run here with start()"
        raise StoreCapabilityError(runtime.store_name, "keeps no queues", way_out)
    check_queue_name(queue)
    name = definition if isinstance(definition, str) else definition.name or ""
    with runtime.observer.enqueue(name, queue, len(runs)) as traceparent:
        news = [await new_due_run(runtime, definition, each, queue, traceparent) for each in runs]
        return await _stored(runtime, news, connection)


async def _stored(runtime: Runtime, news: Sequence[NewRun], connection: object) -> list[str]:
    """Store the runs; returns their ids."""
    if connection is not None:
        taken = await _create_within(runtime, connection, news)
    else:
        taken = await _create(runtime, news)
        runtime.changes.notify(Change.WORK)
    for new in taken:
        stored = await find(runtime, new.run_id, connection)
        if stored is None:
            raise RunNotFoundError(new.run_id)  # it was deleted meanwhile
        check_same(new, stored)
    return [each.run_id for each in news]


async def new_due_run(
    runtime: Runtime, definition: Definition, run: Enqueued, queue: str, traceparent: str | None
) -> NewRun:
    """The due run to store for a request; `traceparent` is the trace context of the call.

    Raises:
        DefinitionError: An option is invalid, or the params do not fit the workflow (`InvalidParamsError`).
    """
    check_key(run.key)
    check_priority(run.priority)
    due = due_time(run.delay, run.at, runtime.clock.now())
    expires_at = expiry(run.expires, due)
    run_id = check_run_id(run.run_id) if run.run_id is not None else str(uuid.uuid4())
    if isinstance(definition, str):
        new = unknown_run(runtime, definition, run.params, run.partition, run_id)
    else:
        new = await prepare_run(runtime, Request(definition, run.params, run.partition, None, None, run_id))
    return replace(
        new,
        owner=None,
        due=due,
        queue=queue,
        queue_key=run.key,
        priority=run.priority,
        expires_at=expires_at,
        started_by="enqueue",
        traceparent=traceparent,
    )


async def _create(runtime: Runtime, news: Sequence[NewRun]) -> list[NewRun]:
    """Store the runs; returns those whose ids are taken."""
    creations = [Creation(new) for new in news]
    with RAISING_ERRORS:
        await runtime.journal.create_all(creations)
    return [each.run for each in creations if each.claim is None]


async def _create_within(runtime: Runtime, connection: object, news: Sequence[NewRun]) -> list[NewRun]:
    store = runtime.store
    if not writes_within(store):
        way_out = "leave out connection=, or use a database"
        raise StoreCapabilityError(runtime.store_name, "cannot store a run in your transaction", way_out)
    claims = await store.create_within(connection, news)
    return [new for new, claim in zip(news, claims, strict=True) if claim is None]
