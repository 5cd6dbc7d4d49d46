"""Executes the steps of a scope in order: ask the cursor, execute the step, apply its result, commit, repeat."""

from __future__ import annotations

from typing import Any, cast

from spine_async._engine.run.refusal import fitting_result
from spine_async._engine.run.transition import apply_result, store_params
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.deadline import AttemptLimit
from spine_async._engine.state.interrupts import Draining, InterruptScope, RunAlreadyRecorded
from spine_async._engine.state.outcome import COMPLETED, Outcome
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.step.attempt import execute_step
from spine_async._engine.step.encoding import EncodedResult
from spine_async._engine.step.failure_log import log_failure
from spine_async._engine.step.large_values import item_problem
from spine_async._engine.step.stored_progress import load_progress
from spine_async._engine.tasks import Task, current_task
from spine_async._model.choice_step import ChoiceStep
from spine_async._model.failure import ErrorCategory
from spine_async._model.status import RunStatus
from spine_async._model.step import Step


async def run_steps(runtime: Runtime, scope: Scope) -> Outcome:
    """Execute the steps of a scope one after the other; returns how they ended.

    The result of the last step is applied but not committed. The caller commits it together with the outcome.

    Raises:
        CommitFailed: A step could not be committed.
        ResumeRefused: The items of a map, or the steps inside of a step, differ from what is stored.
        Draining: The runner is shutting down; no further step begins.
        RunAlreadyRecorded: The run's end was recorded while a step did not react to its cancellation.
    """
    task, cursor, pending = current_task(), scope.cursor, scope.run.pending
    item = scope.item_params
    if item is not None and cursor.step is not None and len(item) * 4 > runtime.max_value_bytes:
        problem = item_problem(scope, runtime.max_value_bytes)
        if problem is not None:
            return Outcome(RunStatus.FAILED, cursor.step.name, problem, ErrorCategory.INTERNAL)
    max_visits = runtime.config.max_step_visits
    with AttemptLimit(runtime.deadlines, task) as limit:
        while (step := cursor.step) is not None:
            if cursor.visit > max_visits:
                return _too_many_visits(step, max_visits)
            if pending.end is not None:
                raise RunAlreadyRecorded
            if runtime.is_draining:
                raise Draining
            visit = _begin_visit(runtime, scope, step)
            try:
                outcome = await _execute_visit(runtime, visit, limit, task)
            except BaseException:
                pending.drop_visit(visit)
                visit.put_back()
                raise
            if outcome is not None:
                return outcome
            if runtime.commits_after(step) and not visit.is_stored:
                await runtime.journal.commit(pending)
            else:
                await runtime.journal.defer()
    return COMPLETED


def _begin_visit(runtime: Runtime, scope: Scope, step: Step) -> Visit:
    path = scope.child_path(scope.cursor.segment)
    visit = Visit(path, step.name, scope.run.clock.now(), runtime.clock.monotonic(), scope, step)
    scope.run.pending.begin_visit(visit)
    if scope.item_params is not None and step.nests_steps:
        store_params(visit)
    return visit


async def _execute_visit(runtime: Runtime, visit: Visit, limit: AttemptLimit, task: Task[Any]) -> Outcome | None:
    """Execute one visit and apply its result; returns the outcome of the scope if this was its last step."""
    run = visit.scope.run
    if visit.scope.reported_path == visit.path:
        await load_progress(runtime, visit)
    runtime.running_visits[task] = visit
    try:
        with runtime.observer.step(run.run_id, visit.path, visit.step) as span:
            if visit.step.can_interrupt:
                encoded = await _execute_interruptible(runtime, visit, task)
            else:
                encoded = await execute_step(runtime, visit, limit)
            if run.pending.end is not None:
                raise RunAlreadyRecorded
            if encoded.appends is not None or isinstance(visit.step, ChoiceStep):
                encoded = fitting_result(visit, encoded, runtime.max_value_bytes)
            # Three decimals; `round(…, 3)` takes 2 % of a step without a store.
            elapsed_ms = round((runtime.clock.monotonic() - visit.started_mono) * 1_000_000) / 1000
            span.settled(visit.step, encoded.result, visit.attempts, elapsed_ms)
    finally:
        del runtime.running_visits[task]
    outcome = apply_result(visit, encoded, run.clock.now(), elapsed_ms)
    if not encoded.result.success:
        log_failure(visit, encoded.result)
    return outcome


async def _execute_interruptible(runtime: Runtime, visit: Visit, task: Task[Any]) -> EncodedResult:
    with InterruptScope() as visit.interrupts:
        encoded = await execute_step(runtime, visit, AttemptLimit(runtime.deadlines, task, is_shared=False))
    # Middleware cannot change what is committed.
    return encoded if visit.committed is None else cast("EncodedResult", visit.committed)


def _too_many_visits(step: Step, limit: int) -> Outcome:
    message = (
        f"step {step.name!r} was visited {limit:,} times, the limit max_step_visits; "
        "check the workflow for an endless loop"
    )
    return Outcome(RunStatus.FAILED, step.name, message, ErrorCategory.CONFIGURATION)
