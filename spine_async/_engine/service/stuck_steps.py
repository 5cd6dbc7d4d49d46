"""Detects steps that were cancelled and do not end."""

from __future__ import annotations

from collections.abc import Iterable

from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.pending_writes import OpenVisit
from spine_async._engine.state.scope import Run
from spine_async._model.failure import ErrorCategory
from spine_async._model.status import RunStatus


def mark_stuck_runs(runs: Iterable[Run], now_mono: float, grace: float) -> None:
    """Set the `stuck_outcome` of each run with a step that does not end, and release whoever waits for the run."""
    for run in runs:
        outcome = find_stuck(run, now_mono, grace)
        if outcome is not None and run.stuck_outcome is None:
            run.stuck_outcome = outcome
            run.done.set()


def find_stuck(run: Run, now_mono: float, grace: float) -> Outcome | None:
    """The outcome to record if a step of the run has not ended `grace` seconds after its cancellation. Pure."""
    limit = now_mono - grace
    visits = list(run.pending.open_visits.values())
    cancellation = run.cancellation
    if cancellation.requested_mono is not None:
        return _cancelled(run, visits, grace) if cancellation.requested_mono <= limit else None
    if cancellation.scope is not None and cancellation.scope.deadline <= limit:
        return _failed(visits, "the workflow timed out, but", grace)
    for visit in visits:
        if visit.deadline_mono is not None and visit.deadline_mono <= limit:
            return _failed([visit], "timed out, but", grace)
        if visit.cancelled_mono is not None and visit.cancelled_mono <= limit:
            inside = [each for each in visits if each.path.startswith(f"{visit.path}[")]
            return _failed(inside or [visit], "an item ended the map, but", grace)
    return None


def _cancelled(run: Run, visits: list[OpenVisit], grace: float) -> Outcome:
    error = _message(visits, "was cancelled, but", grace)
    return Outcome(RunStatus.STOPPED, error=error, stop_reason=run.cancellation.text)


def _failed(visits: list[OpenVisit], why: str, grace: float) -> Outcome:
    top = visits[0].path.partition("[")[0].partition("#")[0] if visits else None
    return Outcome(RunStatus.FAILED, top, _message(visits, why, grace), ErrorCategory.TIMEOUT)


def _message(visits: list[OpenVisit], why: str, grace: float) -> str:
    names = ", ".join(repr(visit.path) for visit in visits) or "none"
    return f"{why} step {names} did not end within {grace:g} s of being cancelled"
