"""Executes a parallel step: runs its branches in a pool of workers until enough of them have succeeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from spine_async._engine.commit.recorder import Commit
from spine_async._engine.handlers.concurrency import concurrency_of
from spine_async._engine.handlers.inner_scope import new_scope, resumed_scope, stored_params
from spine_async._engine.handlers.map_report import base_context
from spine_async._engine.handlers.pool import Pool, is_completed
from spine_async._engine.handlers.stored_scopes import open_progress
from spine_async._engine.run.loop import run_steps
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.attempt_frame import visit_of
from spine_async._engine.state.branch_progress import BranchProgress
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.params import item_params
from spine_async._engine.state.progress_report import ProgressReport
from spine_async._engine.state.scope import Scope
from spine_async._model.context import WorkflowContext
from spine_async._model.context_access import for_item, params_of
from spine_async._model.document import NULL, Document, DocumentMapping, encode, join_object, split_object
from spine_async._model.failure import ErrorCategory, storable_text
from spine_async._model.parallel_step import ParallelStep
from spine_async._model.progress import Progress
from spine_async._model.status import EventType, RunStatus
from spine_async._model.step_result import StepResult
from spine_async._model.visit_row import EventRow
from spine_async.errors import InvalidParamsError


async def run_parallel(runtime: Runtime, step: ParallelStep, context: WorkflowContext) -> StepResult:
    """Run the branches that are not finished yet, until enough have succeeded or too few can succeed.

    Returns:
        Output `{branch: output of its last step}`; None for a branch that did not finish.
    """
    progress = await open_progress(runtime, visit_of(context))
    assert isinstance(progress, BranchProgress)  # noqa: S101 - that of a parallel step
    branches = _Branches(runtime, step, context, progress)
    await branches.run()
    return branches.result()


@dataclass(slots=True)
class _Failure:
    """How a branch failed."""

    error: str
    category: str
    exception: BaseException | None


class _Branches(Pool[str]):
    """The branches of one attempt of a parallel step."""

    def __init__(
        self, runtime: Runtime, step: ParallelStep, context: WorkflowContext, progress: BranchProgress
    ) -> None:
        self._remaining = [name for name in step.inner if not progress.is_finished(name)]
        self._count = len(self._remaining)
        limit = concurrency_of(step, context)
        super().__init__(runtime, visit_of(context), len(step.inner) if limit is None else limit)
        self._remaining.reverse()
        self._step = step
        self._context = context
        self._progress = progress
        self._failures: dict[str, _Failure] = {}
        self._tolerated = len(step.inner) - step.needed
        self._visit.tolerates_failure = lambda: len(self._failures) < self._tolerated
        self._visit.report = ProgressReport(read=self._reported, stored=self._reported())

    def result(self) -> StepResult:
        """The result of the step."""
        if len(self._failures) > self._tolerated:
            return self._failed()
        outputs = {name: Document(self._progress.outputs.get(name, NULL.text)) for name in self._step.inner}
        return StepResult.ok(DocumentMapping(join_object(outputs)))

    def _total(self) -> int:
        return self._count

    def _ending(self) -> StepResult | None:
        has_enough = len(self._progress.outputs) >= self._step.needed
        return self.result() if has_enough or len(self._failures) > self._tolerated else None

    async def _next_entry(self) -> str | None:
        return self._remaining.pop() if self._remaining else None

    async def _run_entry(self, entry: str) -> Commit | None:
        try:
            scope = self._scope(entry)
        except InvalidParamsError as exc:
            outcome = Outcome(RunStatus.FAILED, None, str(exc), ErrorCategory.DATA_QUALITY, exception=exc)
            return self._fail(entry, outcome)
        if scope.cursor.step is not None:
            outcome = await run_steps(self._runtime, scope)
            if not is_completed(outcome):
                return self._fail(entry, outcome)
        output = scope.last_output or NULL
        self._close_scope(scope)
        self._progress.finish(entry, output.text)
        self._add_event(EventType.BRANCH_COMPLETED, entry, {"branch": entry, "output_size": output.size})
        return self._enqueue()

    def _scope(self, name: str) -> Scope:
        path, open_scopes = self._progress.scope_path(name), self._visit.scope.open_scopes
        scope = open_scopes.get(path)
        if scope is None:
            scope = open_scopes[path] = self._open_scope(name, path)
        return scope

    def _open_scope(self, name: str, path: str) -> Scope:
        workflow, stored = self._step.inner[name], self._progress.stored.get(name)
        context = base_context(self._context, workflow, self._runtime.models(workflow))
        earlier, named = split_object(stored_params(stored) or "{}"), self._visit.scope.validated_fields()
        own = item_params(workflow, params_of(context), earlier, {}, named=named)
        context, params = for_item(context, own), join_object(own).text if own else None
        if stored is None:
            return new_scope(self._visit, workflow, path, context, params)
        del self._progress.stored[name]  # not before the params are valid: another attempt continues after the rows
        return resumed_scope(self._visit, workflow, path, context, stored, params=params)

    def _fail(self, name: str, outcome: Outcome) -> Commit | None:
        error, category = outcome.error or "", outcome.error_category or ErrorCategory.INTERNAL
        if outcome.error_step is not None:
            error = f"step {outcome.error_step!r} failed: {error}"
        failure = _Failure(storable_text(error), category, outcome.exception)
        self._failures[name] = failure
        metadata = {"branch": name, "error": failure.error, "category": failure.category}
        self._add_event(EventType.BRANCH_FAILED, name, metadata)
        # If the step fails because of this branch, the commit of its failure writes the events of the branch.
        return None if len(self._failures) > self._tolerated else self._enqueue()

    def _failed(self) -> StepResult:
        failures = [(name, self._failures[name]) for name in self._step.inner if name in self._failures]
        described = "; ".join(f"branch {name!r}: {failure.error}" for name, failure in failures)
        text = f"{len(failures)} of {len(self._step.inner)} branches failed, and {self._step.needed} must succeed; "
        first = failures[0][1]
        self._visit.inner_error = first.exception
        return replace(StepResult.fail(storable_text(text + described), first.category), exception=first.exception)

    def _reported(self) -> Progress:
        return Progress(len(self._progress.outputs) + len(self._failures), len(self._step.inner))

    def _add_event(self, kind: EventType, name: str, metadata: Mapping[str, object]) -> None:
        now, path = self._visit.run.clock.now(), self._progress.scope_path(name)
        self._visit.run.pending.add_events(EventRow(kind, self._step.name, now, encode(metadata).text, path))
