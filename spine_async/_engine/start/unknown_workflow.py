"""The result of a stored run whose definition is not known in this process."""

from __future__ import annotations

from spine_async._engine.run.result import stored_result_of
from spine_async._engine.run.transition import read_quality
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.start.replay import first_context
from spine_async._engine.state.tally import Tally
from spine_async._engine.tasks import run_shielded
from spine_async._model.context_access import with_documents
from spine_async._model.corruption_guard import CorruptionGuard
from spine_async._model.document import Document
from spine_async._model.large_text import split_members
from spine_async._model.record import StoredRun
from spine_async._model.status import StepStatus
from spine_async._model.workflow_result import WorkflowResult

_PAGE_ROWS = 500


async def load_unknown_result(runtime: Runtime, stored: StoredRun) -> WorkflowResult:
    """The result of a run that has ended. Outputs are plain JSON values, because no model is known."""
    tally, after = Tally(), 0
    guard = CorruptionGuard(stored.run_id)
    with guard:
        context = first_context({}, stored, is_resumed=False)
    while True:
        call = runtime.store.past_visits(stored.run_id, after, _PAGE_ROWS)
        page = await run_shielded(call, "spine_async load")
        with guard:
            updates: dict[str, Document] = {}
            outputs: dict[str, Document] = {}
            for row in page.visits:
                updates |= split_members(row.updates) if row.updates else {}
                if row.status in {StepStatus.WAITING, StepStatus.OVERRIDE}:
                    continue
                tally.add(row, ())
                if row.output is not None:
                    outputs[row.step_name] = Document(row.output)
                if row.quality is not None:
                    context = context.with_quality(row.step_name, read_quality(row.quality))
            context = with_documents(context, updates, outputs)
        if len(page.visits) < _PAGE_ROWS:
            return stored_result_of(stored, context, tally)
        after = page.last_seq
