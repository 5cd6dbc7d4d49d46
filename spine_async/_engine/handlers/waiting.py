"""Stores that a wait has begun, and waits for monotonic time; for the steps that wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import anyio

from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.interrupts import CommitFailed
from spine_async._engine.state.marker_row import WAIT_MARK, marker_row
from spine_async._engine.state.scope import Visit
from spine_async._engine.tasks import run_shielded
from spine_async._model.document import encode
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.visit_row import EventRow
from spine_async.errors import SharingError, StoreError

RESOLUTION = 1e-6
"""Seconds. A shorter timer may not advance the clock, because floats near its reading are further apart."""

LONGEST_SLEEP = 86_400.0
"""Seconds; timers of event loops have a limit."""


async def store_wait(runtime: Runtime, visit: Visit, until: datetime | None, metadata: Mapping[str, object]) -> None:
    """Store that the visit waits, with its `step_started` event, before the wait begins.

    Args:
        runtime: What all runs share.
        visit: The visit.
        until: When the wait ends; None: only a signal ends it.
        metadata: Metadata of the event.
    """
    moment = until.isoformat() if until is not None else None
    # The item of its scope is stored again later: checkpoints ignore a pending wait.
    at, output = visit.run.clock.now(), encode(moment).text
    row = marker_row(visit, visit.path + WAIT_MARK, StepStatus.WAITING, at, output=output)
    visit.is_announced = True
    visit.run.pending.add_marker(row, started_event(visit, metadata))
    visit.scope.waits[visit.path] = moment
    await commit_waiting(runtime, visit)


async def commit_waiting(runtime: Runtime, visit: Visit) -> None:
    """Commit the pending writes of the run, which waits from now on."""
    only_waits = visit.scope.is_run or visit.run.idleness.is_last_at_work
    visit.run.pending.status = RunStatus.WAITING if only_waits else RunStatus.RUNNING
    try:
        await runtime.journal.commit(visit.run.pending)
    except CommitFailed as exc:
        await visit.interrupt(exc)


async def read_messages(runtime: Runtime, visit: Visit) -> None:
    """Read the messages of the run from the store into its mailbox."""
    run = visit.run
    try:
        call = runtime.due_runs.notices([run.pending.claim])
        notices = await run_shielded(call, "spine_async messages")
    except (StoreError, SharingError) as exc:
        await visit.interrupt(CommitFailed(exc))
    for notice in notices:
        run.mailbox.deliver(notice.messages)


def started_event(visit: Visit, metadata: Mapping[str, object]) -> EventRow:
    """The `step_started` event of the visit."""
    return EventRow(EventType.STEP_STARTED, visit.step.name, visit.started_at, encode(metadata).text, visit.path)


async def sleep_until_mono(runtime: Runtime, ends_mono: float) -> None:
    """Sleep until this reading of the monotonic clock."""
    while (left := ends_mono - runtime.clock.monotonic()) > RESOLUTION:  # noqa: ASYNC110 - only the time can end it
        await anyio.sleep(min(left, LONGEST_SLEEP))
