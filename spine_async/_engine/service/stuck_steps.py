"""Finding steps that were cancelled and do not end. Pure."""

from __future__ import annotations

from spine_async._engine.state.outcome import ScopeEnd
from spine_async._engine.state.pending_writes import OpenVisit
from spine_async._engine.state.scope import Run
from spine_async._model.failure import ErrorCategory
from spine_async._model.status import RunStatus


def find_stuck(run: Run, now_mono: float, grace: float) -> ScopeEnd | None:
    """How the run is to be recorded where one of its steps does not end within `grace` seconds of being cancelled."""
    limit = now_mono - grace
    visits = list(run.ledger.open_visits.values())
    interruption = run.interruption
    if interruption.since_mono is not None:
        return _interrupted(run, visits, grace) if interruption.since_mono <= limit else None
    if interruption.scope is not None and interruption.scope.deadline <= limit:
        return _failed(visits, "the workflow timed out, but", grace)
    for visit in visits:
        if visit.deadline_mono is not None and visit.deadline_mono <= limit:
            return _failed([visit], "timed out, but", grace)
        if visit.cancelled_mono is not None and visit.cancelled_mono <= limit:
            inside = [each for each in visits if each.path.startswith(f"{visit.path}[")]
            return _failed(inside or [visit], "an item ended the map, but", grace)
    return None


def _interrupted(run: Run, visits: list[OpenVisit], grace: float) -> ScopeEnd:
    return ScopeEnd(RunStatus.STOPPED, error=_told(visits, "was cancelled, but", grace), reason=run.interruption.text)


def _failed(visits: list[OpenVisit], why: str, grace: float) -> ScopeEnd:
    top = visits[0].path.partition("[")[0].partition("#")[0] if visits else None
    return ScopeEnd(RunStatus.FAILED, top, _told(visits, why, grace), ErrorCategory.TIMEOUT)


def _told(visits: list[OpenVisit], why: str, grace: float) -> str:
    names = ", ".join(repr(visit.path) for visit in visits) or "none"
    return f"{why} step {names} did not end within {grace:g} s of being cancelled"
