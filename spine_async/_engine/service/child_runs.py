"""Starts, reads, resumes and stops the runs that workflow steps execute as runs of their own."""

from __future__ import annotations

from dataclasses import replace

from spine_async._engine.commit.creation import Creation
from spine_async._engine.runtime.changes import Change
from spine_async._engine.runtime.child_runs import ChildRun, ChildState
from spine_async._engine.runtime.plain_reads import past_visits
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.service.active_runs import ActiveRuns
from spine_async._engine.service.stop import child_ids, stop_run
from spine_async._engine.start.enqueueing import new_due_run
from spine_async._engine.start.resumption import make_due_again
from spine_async._engine.start.stored_run import load
from spine_async._engine.state.interrupts import RAISING_ERRORS
from spine_async._engine.tasks import run_shielded
from spine_async._model.document import Document
from spine_async._model.queue import Enqueued
from spine_async._model.run_row import NewRun, StoredRun
from spine_async._model.status import RunStatus, StepStatus
from spine_async._model.step import Definition
from spine_async._model.stop_request import StopRequest
from spine_async._model.workflow import Workflow
from spine_async.errors import (
    DefinitionError,
    RunBusyError,
    RunConflictError,
    RunNotFoundError,
    RunNotResumableError,
    WorkflowChangedError,
)

_PAGE = 500
_VISITS = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED})


class StoredChildRuns:
    """The child runs of a runner.

    Args:
        runtime: What all runs share.
        active_runs: The runs that this runner executes.
    """

    def __init__(self, runtime: Runtime, active_runs: ActiveRuns) -> None:
        self._runtime = runtime
        self._active_runs = active_runs

    async def start(self, child: ChildRun) -> bool:
        runtime, workflow = self._runtime, child.workflow
        if not isinstance(workflow, Workflow):
            raise DefinitionError(f"{workflow!r:.80} is not a workflow")
        with runtime.observer.enqueue(workflow.name, child.queue, 1) as traceparent:
            run = Enqueued(params=child.params, partition=child.partition, run_id=child.run_id)
            due = await new_due_run(runtime, workflow, run, child.queue, traceparent)
            new = replace(due, parent_run_id=child.parent_run_id, started_by="step")
            is_new = await self._create(new)
            if not is_new:
                self._check_same(new, await load(runtime, new.run_id))
        runtime.changes.notify(Change.WORK)
        return is_new

    async def state(self, run_id: str) -> ChildState | None:
        stored = await run_shielded(self._runtime.store.load(run_id), "spine_async child")
        if stored is None:
            return None
        output = await self._output(run_id) if stored.status is RunStatus.COMPLETED else None
        return ChildState(
            stored.status,
            stored.workflow_name,
            stored.error_step,
            stored.error,
            stored.error_category,
            stored.stop_reason,
            output,
        )

    async def resume(self, run_id: str, workflow: Definition) -> None:
        assert isinstance(workflow, Workflow)  # noqa: S101 - `start` has checked it
        try:
            stored = await load(self._runtime, run_id)
            # To its end, also if the step is cancelled: a run that is claimed and not released would have no executor.
            await run_shielded(make_due_again(self._runtime, workflow, stored), "spine_async resume child")
        except (RunNotFoundError, RunBusyError, RunNotResumableError, WorkflowChangedError):
            return  # it is under way again, or its end cannot be repeated
        self._runtime.changes.notify(Change.WORK)

    async def stop(self, run_id: str, request: StopRequest) -> None:
        reason, compensates = request.reason, request.compensates
        try:
            await stop_run(self._runtime, self._active_runs, run_id, reason, compensates=compensates)
        except RunNotFoundError:
            return

    async def stop_all(self, parent_run_id: str, request: StopRequest) -> None:
        for child in await child_ids(self._runtime, parent_run_id, is_under_way=True):
            await self.stop(child, request)

    async def _create(self, new: NewRun) -> bool:
        """Store the run; returns whether its id was free."""
        creation = Creation(new)
        with RAISING_ERRORS:
            await self._runtime.journal.create_all([creation])
        return creation.claim is not None

    @staticmethod
    def _check_same(new: NewRun, stored: StoredRun) -> None:
        """Check that the stored run is the child. Its params may differ: the first ones count."""
        if (stored.parent_run_id, stored.workflow_name) != (new.parent_run_id, new.workflow_name):
            problem = (
                f"run {new.run_id!r} exists and is no child of run {new.parent_run_id!r}; delete it, or rename the step"
            )
            raise RunConflictError(new.run_id, problem)

    async def _output(self, run_id: str) -> Document:
        """The output of the last step, whatever the definition of the workflow is by now."""
        after, output = 0, None
        while True:
            call = past_visits(self._runtime.store, run_id, after, _PAGE)
            page = await run_shielded(call, "spine_async child output")
            visits = [row for row in page.visits if row.status in _VISITS]
            output = visits[-1].output if visits else output
            if len(page.visits) < _PAGE:
                return Document(output or "null")
            after = page.last_seq
