"""Steps that were cancelled and do not end."""

from __future__ import annotations

from spine_async import Workflow, WorkflowContext
from spine_async._engine.service.stuck_steps import find_stuck, mark_stuck_runs
from spine_async._engine.state.cancellation import CancelReason
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.outcome import Outcome
from spine_async._engine.state.run import Run
from spine_async._engine.state.scope import Scope, Visit
from spine_async._model.status import RunStatus
from tests.unit._engine.builders import NOW, a_run, plain

GRACE = 2.5
"""Seconds; the tests cancel at 10.0, so a step is stuck from 12.5."""


class RunScope:
    """The two members of a cancel scope that a run's cancellation uses."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def cancel(self) -> None: ...


def running(*paths: str) -> Run:
    """A run in which the visits with these paths have begun."""
    run = a_run(Workflow("w", [plain("a")]))
    scope = Scope(run, run.workflow, "", Cursor(run.workflow), WorkflowContext())
    for path in paths:
        visit = Visit(
            path=path, step_name=path, started_at=NOW, started_mono=0.0, scope=scope, step=run.workflow.steps[0]
        )
        run.pending.begin_visit(visit)
    return run


def stuck(run: Run, now_mono: float) -> Outcome | None:
    return find_stuck(run, now_mono, GRACE)


def failed(step: str | None, error: str) -> Outcome:
    return Outcome(RunStatus.FAILED, step, error, "TIMEOUT")


def test_a_run_that_is_not_cancelled_is_never_stuck() -> None:
    assert stuck(running("a"), 1e9) is None


def test_a_cancelled_run_is_stuck_after_the_grace() -> None:
    run = running("a", "each[3]/b#2")
    run.cancellation.request(CancelReason.USER, 10.0, "no longer needed")
    assert stuck(run, 12.4) is None
    error = "was cancelled, but step 'a', 'each[3]/b#2' did not end within 2.5 s of being cancelled"
    assert stuck(run, 12.5) == Outcome(RunStatus.STOPPED, error=error, stop_reason="no longer needed")


def test_a_cancelled_run_without_an_open_visit_is_stuck_too() -> None:
    run = running()
    run.cancellation.request(CancelReason.SHUTDOWN, 10.0)
    error = "was cancelled, but step none did not end within 2.5 s of being cancelled"
    assert stuck(run, 12.5) == Outcome(RunStatus.STOPPED, error=error, stop_reason="shutdown")


def test_a_run_past_its_deadline_is_stuck_after_the_grace() -> None:
    run = running("each#2[0]/b", "each#2[1]/b")
    run.cancellation.attach(RunScope(10.0))  # type: ignore[arg-type]  # a real scope needs an event loop
    assert stuck(run, 12.4) is None
    error = "the workflow timed out, but step 'each#2[0]/b', 'each#2[1]/b' did not end within 2.5 s of being cancelled"
    assert stuck(run, 12.5) == failed("each", error)


def test_a_run_past_its_deadline_without_an_open_visit_names_no_step() -> None:
    run = running()
    run.cancellation.attach(RunScope(10.0))  # type: ignore[arg-type]
    error = "the workflow timed out, but step none did not end within 2.5 s of being cancelled"
    assert stuck(run, 12.5) == failed(None, error)


def test_an_attempt_past_its_timeout_is_stuck_after_the_grace() -> None:
    run = running("a#3", "other")
    run.pending.open_visits["a#3"].deadline_mono = 10.0
    assert stuck(run, 12.4) is None
    error = "timed out, but step 'a#3' did not end within 2.5 s of being cancelled"
    assert stuck(run, 12.5) == failed("a", error)


def test_an_item_of_a_map_that_ended_is_stuck_after_the_grace() -> None:
    run = running("each", "each[1]/b", "each#2[1]/b", "other")
    run.pending.open_visits["each"].cancelled_mono = 10.0
    assert stuck(run, 12.4) is None
    error = "an item ended the map, but step 'each[1]/b' did not end within 2.5 s of being cancelled"
    assert stuck(run, 12.5) == failed("each", error)


def test_a_map_that_does_not_end_after_its_items_is_stuck_itself() -> None:
    run = running("each")
    run.pending.open_visits["each"].cancelled_mono = 10.0
    error = "an item ended the map, but step 'each' did not end within 2.5 s of being cancelled"
    assert stuck(run, 12.5) == failed("each", error)


def test_the_cancellation_of_the_run_takes_precedence() -> None:
    run = running("a")
    run.pending.open_visits["a"].deadline_mono = 1.0
    run.cancellation.attach(RunScope(1.0))  # type: ignore[arg-type]
    run.cancellation.request(CancelReason.USER, 10.0)
    assert stuck(run, 12.4) is None
    outcome = stuck(run, 12.5)
    assert outcome is not None
    assert outcome.status is RunStatus.STOPPED


def test_marking_sets_the_outcome_and_releases_the_waiters_once() -> None:
    late, early = running("a"), running("b")
    late.cancellation.request(CancelReason.USER, 10.0, "first")
    early.cancellation.request(CancelReason.USER, 11.0)
    mark_stuck_runs([late, early], 12.5, GRACE)
    assert (late.done.is_set, early.done.is_set, early.stuck_outcome) == (True, False, None)
    outcome = late.stuck_outcome
    assert outcome is not None
    mark_stuck_runs([late, early], 13.5, GRACE)
    assert late.stuck_outcome is outcome
    assert early.done.is_set
