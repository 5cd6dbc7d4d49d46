"""The position of a run: before its first step, or after the steps that are stored."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from spine_async._engine.run.transition import read_quality, replay
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.scope import Position
from spine_async._engine.tasks import run_shielded
from spine_async._model.context import WorkflowContext
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import split_object, split_values
from spine_async._model.record import StoredRun
from spine_async._model.workflow import Workflow
from spine_async.errors import WorkflowChangedError


def first_position(runtime: Runtime, workflow: Workflow, stored: StoredRun, *, is_resumed: bool) -> Position:
    """The position before the run's first step.

    Raises:
        WorkflowChangedError: The definition does not have the step that the run starts from.
    """
    start = stored.start_from
    if start is not None and start not in workflow.positions:
        problem = "is missing, and the run starts from it"
        raise WorkflowChangedError(stored.run_id, start, problem, role="step")
    context = _first_context(runtime.models(workflow), stored, is_resumed=is_resumed)
    return Position(Cursor(workflow, start), context)


async def load_position(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> Position:
    """The position after the stored steps of the run.

    Raises:
        WorkflowChangedError: The definition no longer fits the stored steps.
        CorruptRecordError: A stored value cannot be read.
    """
    rows = await run_shielded(runtime.store.past_visits(stored.run_id), "spine_async load")
    with CorruptionGuard(stored.run_id):
        position = first_position(runtime, workflow, stored, is_resumed=True)
        replay(position, stored.run_id, rows)
    return position


def _first_context(models: Mapping[str, type[BaseModel]], stored: StoredRun, *, is_resumed: bool) -> WorkflowContext:
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
        context = context.with_models(models)
    return context.with_documents(split_object(stored.params), split_object(stored.initial_outputs))
