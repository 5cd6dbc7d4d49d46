"""The result of a run that has ended."""

from __future__ import annotations

from contextlib import suppress

from spine_async._engine.run.result import stored_failure, stored_result, stored_result_of
from spine_async._engine.run.stored_values import StoredValues
from spine_async._engine.runtime.plain_reads import last_event, past_visits
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.replay import first_context, load_position
from spine_async._engine.state.cursor import segment_of
from spine_async._engine.state.tally import Tally
from spine_async._engine.state.unwinding import OUTCOME_MARK, Unwinding, is_compensation
from spine_async._engine.tasks import run_shielded
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.run_row import StoredRun
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.workflow import Workflow
from spine_async._model.workflow_result import WorkflowResult
from spine_async.errors import WorkflowChangedError

_PAGE_ROWS = 500


async def load_result(runtime: Runtime, workflow: Workflow | None, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended, as it was when it ended, whichever version of its workflow ended it.

    A definition that fits the run revives outputs to models and names the steps that were jumped over. Without one the
    result is read as plain JSON values.

    Args:
        runtime: What all runs share.
        workflow: The definition that this process has, or None.
        stored: The run.
    """
    if workflow is not None and stored.workflow_version <= workflow.version:
        # The version of a run is that of its start; a later version may have ended it.
        with suppress(WorkflowChangedError):
            return await _load_fitting_result(runtime, workflow, stored)
    return await load_plain_result(runtime, stored)


async def load_plain_result(runtime: Runtime, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended. Outputs are plain JSON values, because no definition is used."""
    tally, after = Tally(), 0
    unwinding: Unwinding | None = None
    guard = CorruptionGuard(stored.run_id)
    with guard:
        context = first_context({}, stored, is_resumed=False)
    while True:
        call = past_visits(runtime.store, stored.run_id, after, _PAGE_ROWS)
        page = await run_shielded(call, "spine_async load")
        with guard:
            values = StoredValues(context, None)
            for row in page.visits:
                if row.step_name == OUTCOME_MARK:
                    unwinding = Unwinding.read(row.output)
                elif unwinding is not None and is_compensation(row):
                    unwinding.add(row)
                    continue
                values.add_params(row)
                if row.status in {StepStatus.WAITING, StepStatus.OVERRIDE}:
                    continue
                tally.add(row, ())
                values.add_result(row)
            context = values.applied()
        if len(page.visits) < _PAGE_ROWS:
            break
        after = page.last_seq
    await _add_failed_step(runtime, stored, tally)
    return stored_result_of(stored, context, tally, unwinding)


async def _add_failed_step(runtime: Runtime, stored: StoredRun, tally: Tally) -> None:
    """Count the step that failed the run, of whose visit there is no row, if no definition names its place."""
    step = stored.error_step
    if stored.status is not RunStatus.FAILED or step is None or step in tally.failed:
        return
    path = segment_of(step, sum(each.name == step for each in tally.metrics) + 1)
    if await last_event(runtime.store, stored.run_id, EventType.STEP_FAILED, path) is not None:
        tally.add_failed_step(step)


async def _load_fitting_result(runtime: Runtime, workflow: Workflow, stored: StoredRun) -> WorkflowResult:
    """As `load_result`.

    Raises:
        WorkflowChangedError: The definition does not fit the run.
    """
    position = await load_position(runtime, workflow, stored, is_resumed=False)
    step = position.cursor.step
    if stored.status is RunStatus.FAILED and step is not None:
        path, store = position.cursor.segment, runtime.store
        failed = await last_event(store, stored.run_id, EventType.STEP_FAILED, path)
        if failed is not None:
            started = await last_event(store, stored.run_id, EventType.STEP_STARTED, path)
            with CorruptionGuard(stored.run_id):
                position.tally.add_failure(stored_failure(step, failed, started))
    await _add_failed_step(runtime, stored, position.tally)  # it may be a step of a later version, or of the cleanup
    return stored_result(workflow, stored, position)
