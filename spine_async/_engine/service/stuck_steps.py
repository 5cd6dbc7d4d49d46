"""Detects steps that were cancelled and do not end.

If the run cannot continue after such a step, the run's end is recorded while the step is still running. If the run can
continue, for instance with a retry, the runner waits for the step. Then a warning names it once per grace period.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from spine_async._engine.state.interrupts import RunInterrupt, StopRequested
from spine_async._engine.state.open_visit import OpenVisit
from spine_async._engine.state.outcome import SHUTDOWN, Outcome
from spine_async._engine.state.run import Run
from spine_async._engine.state.scope import Visit
from spine_async._model.failure import ErrorCategory
from spine_async._model.parallel_step import ParallelStep
from spine_async._model.status import RunStatus
from spine_async._model.step_result import StepResult

_TIMED_OUT = StepResult.fail(TimeoutError("the attempt timed out"), ErrorCategory.TIMEOUT)

_log = logging.getLogger("spine_async")


def mark_stuck_runs(runs: Iterable[Run], now_mono: float, grace: float) -> None:
    """Set the `stuck_outcome` of each run with a step that does not end, and release the waiters of the run.

    Logs a warning for each step that does not end if its run can continue after it.
    """
    for run in runs:
        if run.stuck_outcome is not None:
            continue
        outcome = find_stuck(run, now_mono, grace)
        if outcome is not None:
            run.stuck_outcome = outcome
            run.done.set()
            continue
        for visit in _overdue(run, now_mono - grace):
            _warn_regularly(visit, now_mono, grace)


def find_stuck(run: Run, now_mono: float, grace: float) -> Outcome | None:
    """The outcome to record if a step has not ended `grace` seconds after its cancellation and nothing follows it."""
    limit = now_mono - grace
    cancellation = run.cancellation
    if cancellation.requested_mono is not None:
        return _cancelled(run, grace) if cancellation.requested_mono <= limit else None
    if cancellation.scope is not None and cancellation.scope.deadline <= limit:
        return _failed(list(run.pending.open_visits.values()), "the workflow timed out, but", grace)
    for visit in _overdue(run, limit):
        outcome = _outcome_without(visit, limit, grace)
        if outcome is not None:
            return outcome
    return None


def _overdue(run: Run, limit: float) -> list[Visit]:
    """Visits that were cancelled before `limit`, by their own timeout or because a scope inside decided them."""
    return [
        visit
        for visit in run.pending.open_visits.values()
        if ((visit.deadline_mono is not None and visit.deadline_mono <= limit) or _has_ended(visit, limit))
        and isinstance(visit, Visit)
    ]


def _has_ended(visit: OpenVisit, limit: float) -> bool:
    return visit.cancelled_mono is not None and visit.cancelled_mono <= limit


def _outcome_without(visit: Visit, limit: float, grace: float) -> Outcome | None:
    """The outcome of the run without this visit, or None if the run continues after it."""
    if not _has_ended(visit, limit):
        return None if _continues_after(visit, _TIMED_OUT) else _failed([visit], "timed out, but", grace)
    ending = visit.ending
    if isinstance(ending, StepResult) and ending.success:
        return None  # the branches that are not needed any more delay the run until they end
    inside = [each for each in visit.run.pending.open_visits.values() if each.path.startswith(f"{visit.path}[")]
    why = "a branch ended the step, but" if isinstance(visit.step, ParallelStep) else "an item ended the map, but"
    error = _message(inside or [visit], why, grace)
    if isinstance(ending, StopRequested):
        return Outcome(RunStatus.STOPPED, error=error, stop_reason=ending.reason)
    if isinstance(ending, RunInterrupt):
        return Outcome(RunStatus.STOPPED, error=error, stop_reason=SHUTDOWN.stop_reason)
    failure = ending if isinstance(ending, StepResult) else StepResult.from_exception(ending or Exception())
    return None if _continues_after(visit, failure) else _failed(inside or [visit], why, grace)


def _continues_after(visit: Visit, failure: StepResult) -> bool:
    """Whether the run continues after this failure: by a retry, `catch`, `on_error` or a tolerance for items."""
    if visit.step.continues_after(failure.category) or _is_retried(visit, failure):
        return True
    parent = visit.scope.parent
    if parent is None:
        return False
    if parent.cancelled_mono is not None or (parent.tolerates_failure is not None and parent.tolerates_failure()):
        return True  # the visit of the parent decides
    return _continues_after(parent, failure)


def _is_retried(visit: Visit, failure: StepResult) -> bool:
    try:
        policy, category = visit.next_retry, failure.category or ErrorCategory.INTERNAL
        return policy is not None and policy.retries(category, failure.as_exception)
    except Exception:  # noqa: BLE001 - a predicate is user code; the step fails with its error later
        return False


def _warn_regularly(visit: Visit, now_mono: float, grace: float) -> None:
    if visit.warned_mono is not None and now_mono - visit.warned_mono < grace:
        return
    visit.warned_mono = now_mono
    cancelled_mono = visit.cancelled_mono if visit.cancelled_mono is not None else visit.deadline_mono
    _log.warning(
        "run %s: step %r has not ended %.1f s after it was cancelled; the run continues once it ends",
        visit.run.run_id,
        visit.path,
        now_mono - (cancelled_mono or now_mono),
    )


def _cancelled(run: Run, grace: float) -> Outcome:
    error = _message(list(run.pending.open_visits.values()), "was cancelled, but", grace, run.threads.names)
    return Outcome(RunStatus.STOPPED, error=error, stop_reason=run.cancellation.text)


def _failed(visits: Iterable[OpenVisit], why: str, grace: float) -> Outcome:
    visits = list(visits)
    top = re.split(r"[/\[#]", visits[0].path, maxsplit=1)[0] if visits else None
    return Outcome(RunStatus.FAILED, top, _message(visits, why, grace), ErrorCategory.TIMEOUT)


def _message(visits: Iterable[OpenVisit], why: str, grace: float, threads: Iterable[str] = ()) -> str:
    names = ", ".join(repr(visit.path) for visit in visits) or ", ".join(map(repr, threads)) or "none"
    return f"{why} step {names} did not end within {grace:g} s of being cancelled"
