"""Compensates the finished visits of a run, the last one first. Each compensation is a visit of its own.

Theory of operation: the stored rows tell which visits have completed, and which of them are compensated already. So a
crash continues with the next one. A compensation sees the context of its scope as it was at the end, with the output of
its own visit.
"""

from __future__ import annotations

from dataclasses import dataclass

from spine_async._engine.run.past_rows import PastRows, step_at
from spine_async._engine.run.transition import apply_compensation
from spine_async._engine.runtime.runtime import Runtime
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.deadline import AttemptLimit
from spine_async._engine.state.interrupts import Draining, ResumeRefused, RunAlreadyRecorded
from spine_async._engine.state.marker_row import event_marker
from spine_async._engine.state.scope import Scope, Visit
from spine_async._engine.state.unwinding import COMPENSATED_MARK, Unwinding
from spine_async._engine.step.attempt import execute_step
from spine_async._engine.step.failure_log import log_failure
from spine_async._engine.tasks import current_task
from spine_async._model.context_access import with_documents
from spine_async._model.document import Document
from spine_async._model.lambda_step import LambdaStep
from spine_async._model.naming import COMPENSATION_MARK
from spine_async._model.status import ErrorPolicy, EventType, StepStatus, StepType
from spine_async._model.step import Definition, Step
from spine_async._model.visit_row import VisitRow
from spine_async.errors import WorkflowChangedError

_WITH_TIMEOUT = (StepType.LAMBDA, StepType.PIPELINE)


@dataclass(frozen=True, slots=True)
class _Target:
    """A finished visit that has a compensation."""

    path: str
    seq: int
    step: Step


async def compensate(runtime: Runtime, scope: Scope, unwinding: Unwinding) -> None:
    """Execute the compensations that remain, and store that they have ended.

    A compensation that fails is recorded, and the others are still executed.

    Raises:
        CommitFailed: The run has another owner, or the store failed.
        Draining: The runner is shutting down; no further compensation begins.
        ResumeRefused: A step that had not finished has finished steps inside that the definition does not have.
    """
    rows = PastRows(runtime, scope)
    unwinding.compensated, unwinding.failed = [], []
    targets = await _targets(scope, rows, unwinding)
    while targets:
        if runtime.is_draining:
            raise Draining
        target = targets.pop()
        is_success = await _compensate(runtime, scope, rows, target)
        (unwinding.compensated if is_success else unwinding.failed).append(target.path)
    unwinding.is_compensated = True
    counts = {"compensated": len(unwinding.compensated), "failed": len(unwinding.failed)}
    marker = event_marker(scope, COMPENSATED_MARK, EventType.WORKFLOW_COMPENSATED, unwinding.summary(), counts)
    scope.run.pending.add_marker(*marker)
    await runtime.journal.commit(scope.run.pending)


async def _targets(scope: Scope, rows: PastRows, unwinding: Unwinding) -> list[_Target]:
    """The visits that remain to be compensated, in the order of their completion.

    A step that has finished is not compared with the definition, as in a resume: what is inside of it may have changed
    since, and what the definition does not have any more is not compensated.
    """
    workflow = scope.run.workflow
    found: dict[str, _Target] = {}
    unknown: dict[str, str] = {}  # the first unknown step inside of each visit of the run's own steps
    async for row in rows.pages():
        unknown.pop(row.path, None)
        if row.step_name.endswith(COMPENSATION_MARK) and row.status is not StepStatus.WAITING:
            found.pop(row.path.removesuffix(COMPENSATION_MARK), None)
            unwinding.add(row)
        elif row.status is StepStatus.COMPLETED:
            step = step_at(workflow, row.scope, row.step_name)
            if step is None:
                _note_unknown(workflow, row, unknown)
            elif step.compensate is not None:
                found[row.path] = _Target(row.path, row.seq, step)
    for path, name in unknown.items():
        problem = f"finished step {name!r} inside of it is not part of the definition"
        raise ResumeRefused(WorkflowChangedError(scope.run.run_id, name, problem, map_path=path))
    return list(found.values())


def _note_unknown(workflow: Definition, row: VisitRow, unknown: dict[str, str]) -> None:
    """Note a row inside of a step of the workflow; the steps of an earlier cleanup are none of these."""
    visit = row.scope.partition("/")[0].partition("[")[0]
    if visit.partition("#")[0] in workflow.positions:
        unknown.setdefault(visit, row.step_name)


async def _compensate(runtime: Runtime, scope: Scope, rows: PastRows, target: _Target) -> bool:
    """Execute a compensation and store its end; returns whether it succeeded."""
    row = await rows.at(target.seq)
    context = await rows.context_of(row)
    if row.output is not None:
        context = with_documents(context, None, {row.step_name: Document(row.output)})
    step = _compensation(runtime, target)
    inner = Scope(scope.run, scope.workflow, row.scope, Cursor(scope.workflow), context, retries=scope.retries)
    now, now_mono = scope.run.clock.now(), runtime.clock.monotonic()
    return await _execute(runtime, Visit(target.path + COMPENSATION_MARK, step.name, now, now_mono, inner, step))


async def _execute(runtime: Runtime, visit: Visit) -> bool:
    run, task = visit.run, current_task()
    run.pending.begin_visit(visit)
    runtime.running_visits[task] = visit
    try:
        with (
            AttemptLimit(runtime.deadlines, task) as limit,
            runtime.observer.step(run.run_id, visit.path, visit.step) as span,
        ):
            encoded = await execute_step(runtime, visit, limit)
            if run.pending.end is not None:
                raise RunAlreadyRecorded
            elapsed_ms = round((runtime.clock.monotonic() - visit.started_mono) * 1000, 3)
            span.settled(visit.step, encoded.result, visit.attempts, elapsed_ms)
    except BaseException:
        run.pending.drop_visit(visit)
        raise
    finally:
        del runtime.running_visits[task]
    apply_compensation(visit, encoded, run.clock.now(), elapsed_ms)
    if not encoded.result.success:
        log_failure(visit, encoded.result)
    await runtime.journal.commit(run.pending)
    return encoded.result.success


def _compensation(runtime: Runtime, target: _Target) -> LambdaStep:
    """The step that calls the compensation."""
    step = target.step
    compensation = LambdaStep(
        name=step.name,
        handler=step.compensate,  # type: ignore[arg-type] # only steps with a compensation are targets
        config=step.config,
        retry=runtime.limits(step)[1],
        timeout=step.timeout if step.step_type in _WITH_TIMEOUT else None,
        on_error=ErrorPolicy.CONTINUE,
    )
    name = target.path.rpartition("/")[2] + COMPENSATION_MARK
    object.__setattr__(compensation, "name", name)  # a name that no other step can have
    return compensation
