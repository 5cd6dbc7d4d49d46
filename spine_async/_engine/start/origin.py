"""Where a run's execution begins: its own scope, from a run just created or from one that is stored."""

from __future__ import annotations

from spine_async._engine.run.transition import read_quality
from spine_async._engine.runtime.runtime import Engine
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.pending_writes import Ledger
from spine_async._engine.state.scope import Run, Scope
from spine_async._model.context import WorkflowContext
from spine_async._model.document import split_object, split_values
from spine_async._model.record import Claim, StoredRun
from spine_async._model.workflow import Workflow


def first_scope(engine: Engine, workflow: Workflow, stored: StoredRun, claim: Claim, *, is_resumed: bool) -> Scope:
    """The run's scope as it is before its first step."""
    ledger = Ledger(claim, emits=engine.config.emit_events)
    run = Run(stored.run_id, workflow, ledger, stored.started_at, engine.clock, is_resumed=is_resumed)
    return Scope(
        run, workflow, "", Cursor(workflow, stored.start_from), _first_context(workflow, stored, is_resumed=is_resumed)
    )


def _first_context(workflow: Workflow, stored: StoredRun, *, is_resumed: bool) -> WorkflowContext:
    quality = split_object(stored.initial_quality)
    context = WorkflowContext(
        stored.run_id,
        stored.workflow_name,
        quality={step: read_quality(each.text) for step, each in quality.items()},
        partition=split_values(stored.partition) if stored.partition is not None else None,
        metadata={**split_values(stored.metadata), "resumed": is_resumed},
        started_at=stored.started_at,
    )
    if workflow.models:
        context = context.with_models(workflow.models)
    return context.with_documents(split_object(stored.params), split_object(stored.initial_outputs))


def unclaimed(stored: StoredRun) -> Claim:
    """A claim to look at a stored run with; nothing can be committed by it."""
    return Claim(stored.run_id, 0, stored.epoch, stored.next_seq)
