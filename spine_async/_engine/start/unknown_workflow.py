"""The result of a stored run whose definition is not known in this process."""

from __future__ import annotations

from spine_async._engine.run.result import stored_result_of
from spine_async._engine.run.stored_values import StoredValues
from spine_async._engine.runtime.plain_reads import past_visits
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.replay import first_context
from spine_async._engine.state.tally import Tally
from spine_async._engine.state.unwinding import OUTCOME_MARK, Unwinding, is_compensation
from spine_async._engine.tasks import run_shielded
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.record import StoredRun
from spine_async._model.status import StepStatus
from spine_async._model.workflow_result import WorkflowResult

_PAGE_ROWS = 500


async def load_unknown_result(runtime: Runtime, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended. Outputs are plain JSON values, because no model is known."""
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
            return stored_result_of(stored, context, tally, unwinding)
        after = page.last_seq
