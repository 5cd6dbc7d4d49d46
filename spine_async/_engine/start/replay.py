"""The position of a run: before its first step, or after the steps that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spine_async._engine.run.stored_values import read_quality
from spine_async._engine.run.transition import replay
from spine_async._engine.runtime.plain_reads import past_visits
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.position import Position
from spine_async._engine.tasks import PeriodicYield, run_shielded
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import with_documents, with_models
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import split_object, split_values
from spine_async._model.large_text import LARGE_TEXT, split_members
from spine_async._model.output_model import OutputModel
from spine_async._model.run_row import StoredRun
from spine_async._model.visit_row import PastVisit
from spine_async._model.workflow import Workflow
from spine_async.errors import WorkflowChangedError

_PAGE_ROWS = 500  # a page is replayed in some milliseconds


def first_position(runtime: Runtime, workflow: Workflow, stored: StoredRun, *, is_resumed: bool) -> Position:
    """The position before the run's first step; call it on a thread if the params or outputs are large.

    Raises:
        WorkflowChangedError: The definition does not have the step that the run starts from.
    """
    start = stored.start_from
    if start is not None and start not in workflow.positions:
        problem = "is missing, but the run starts from it"
        raise WorkflowChangedError(stored.run_id, start, problem, role="step")
    context = first_context(runtime.models(workflow), stored, is_resumed=is_resumed)
    return Position(Cursor(workflow, start), context)


async def load_position(runtime: Runtime, workflow: Workflow, stored: StoredRun, *, is_resumed: bool) -> Position:
    """The position after the stored steps of the run; `is_resumed` is what its steps see as `metadata["resumed"]`.

    Raises:
        WorkflowChangedError: The definition no longer fits the stored steps.
        CorruptRecordError: A stored value cannot be read.
    """
    guard, pause = CorruptionGuard(stored.run_id), PeriodicYield()
    with guard:
        position = await first_position_of(runtime, workflow, stored, is_resumed=is_resumed)
    if stored.next_seq == 1:  # no owner has committed anything
        return position
    after = 0
    while True:
        call = past_visits(runtime.store, stored.run_id, after, _PAGE_ROWS)
        page = await run_shielded(call, "spine_async load")
        with guard:
            await replay_rows(runtime, position, stored.run_id, page.visits)
        if len(page.visits) < _PAGE_ROWS:
            return position
        after = page.last_seq
        await pause()


async def replay_rows(runtime: Runtime, position: Position, run_id: str, rows: Sequence[PastVisit]) -> None:
    """Move the position past the rows; large values are decoded on a thread."""
    if any(len(row.updates or "") > LARGE_TEXT for row in rows):
        await runtime.run_on_thread(replay, position, run_id, rows)
    else:
        replay(position, run_id, rows)


async def first_position_of(runtime: Runtime, workflow: Workflow, stored: StoredRun, *, is_resumed: bool) -> Position:
    """As `first_position`; large values are decoded on a thread."""
    if max(len(stored.params), len(stored.initial_outputs)) > LARGE_TEXT:
        return await runtime.run_on_thread(first_position, runtime, workflow, stored, is_resumed=is_resumed)
    return first_position(runtime, workflow, stored, is_resumed=is_resumed)


def first_context(models: Mapping[str, OutputModel], stored: StoredRun, *, is_resumed: bool) -> WorkflowContext:
    """The context before the first step of a stored run; `models` revive outputs, by step name."""
    quality = split_object(stored.initial_quality)
    context = WorkflowContext(
        stored.run_id,
        stored.workflow_name,
        quality={step: read_quality(each.text) for step, each in quality.items()},
        partition=split_values(stored.partition) if stored.partition is not None else None,
        metadata={**split_values(stored.metadata), "resumed": is_resumed},
        started_at=stored.started_at,
    )
    if models:
        context = with_models(context, models)
    return with_documents(context, split_members(stored.params), split_members(stored.initial_outputs))
