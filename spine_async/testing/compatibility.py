"""Tries a definition on stored runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from spine_async._engine.start.replay import load_position
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.run_row import StoredRun
from spine_async._model.status import RunStatus
from spine_async._model.workflow import Workflow
from spine_async.errors import CorruptRecordError, WorkflowChangedError
from spine_async.ports import RunStore
from spine_async.runner import WorkflowRunner

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """A stored run that a definition cannot continue.

    Attributes:
        run_id: The run.
        status: Its status.
        problem: Why it cannot be continued, and what to do.
    """

    run_id: str
    status: RunStatus
    problem: str


async def check_compatible(store: RunStore, workflow: Workflow) -> list[Incompatibility]:
    """Find the stored runs of a workflow that a new definition of it could not continue; nothing is written.

    Looks at all runs with the name of the workflow that have not completed, as a resume would. Reads the finished steps
    of each, so it takes as long as resuming them.

    Args:
        store: The store, for example `open_store(config)`.
        workflow: The new definition.

    Returns:
        The runs that cannot be continued, newest first; empty if the definition fits all of them.

    Raises:
        StoreError: The store cannot be read.
    """
    runtime = WorkflowRunner(store=store, work=False, workflows=[workflow])._runtime  # noqa: SLF001 (no step is executed)
    found = []
    async for run in _resumable(store, workflow.name):
        try:
            await load_position(runtime, workflow, run, is_resumed=True)
        except (WorkflowChangedError, CorruptRecordError) as exc:
            found.append(Incompatibility(run.run_id, run.status, str(exc)))
    return found


async def _resumable(store: RunStore, name: str) -> AsyncIterator[StoredRun]:
    chosen = RunFilter(workflow_name=name, limit=_PAGE)
    while page := await store.runs(chosen):
        for run in page:
            if run.status is not RunStatus.COMPLETED:
                yield run
        chosen = replace(chosen, cursor=RunCursor(page[-1].created_at, page[-1].key))
