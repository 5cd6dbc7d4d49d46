"""The effect of a step's result on its scope, and the replay of stored rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from spine_async import QualityMetrics, Step, StepEvent, StepResult, Workflow, WorkflowChangedError, WorkflowContext
from spine_async._engine.run.refusal import fitting_result
from spine_async._engine.run.transition import apply_result, replay
from spine_async._engine.state.cursor import Cursor
from spine_async._engine.state.outcome import COMPLETED, Outcome
from spine_async._engine.state.position import Position
from spine_async._engine.state.scope import Scope
from spine_async._engine.step.encoding import encode_result
from spine_async._model.document import Document
from spine_async._model.run_change import RunChange
from spine_async._model.status import RunStatus, StepStatus, StepType
from tests.unit._engine.builders import NOW, next_visit, past_visit, plain, run_scope

AB = Workflow("w", [plain("a"), plain("b")])
CHOOSING = Workflow("w", [Step.choice("choose", lambda context: True, "end"), plain("between"), plain("end")])


def apply(scope: Scope, result: StepResult, *, attempts: int = 1) -> Outcome | None:
    """Apply a result to the step at the scope's cursor."""
    visit = next_visit(scope, attempts=attempts)
    encoded = fitting_result(visit, encode_result(visit.step, result), 1000)
    return apply_result(visit, encoded, NOW, 12.5)


def written(scope: Scope) -> RunChange:
    return scope.run.pending.drain(NOW, "t")


def item_scope(workflow: Workflow, index: int = 4) -> Scope:
    """The scope of an item of a map `each`."""
    outer = run_scope(Workflow("w", [Step.map("each", items=[1], iterator=workflow)]))
    parent = next_visit(outer)
    return Scope(
        outer.run,
        workflow,
        f"each[{index}]",
        Cursor(workflow),
        WorkflowContext(params={"item": 5}),
        item_index=index,
        item_params='{"item":5}',
        parent=parent,
    )


def step_name(scope: Scope) -> str | None:
    return scope.cursor.step.name if scope.cursor.step is not None else None


def test_a_completed_step_moves_the_cursor_and_adds_a_row() -> None:
    scope = run_scope(AB, params={"size": 1, "kept": 2})
    result = StepResult.ok({"n": 1}, {"size": 3}, QualityMetrics(record_count=2), [StepEvent("own", {"k": 1})])
    assert apply(scope, result, attempts=2) is None
    assert step_name(scope) == "b"
    assert dict(scope.context.params) == {"size": 3, "kept": 2}
    assert scope.context.get_output("a", "n") == 1
    assert scope.context.get_quality("a") == QualityMetrics(record_count=2)
    assert scope.last_output == Document('{"n":1}')
    assert scope.run.pending.open_visits == {}
    change = written(scope)
    (row,) = change.visits
    assert (row.path, row.step_name, row.step_type, row.status) == ("a", "a", StepType.LAMBDA, StepStatus.COMPLETED)
    assert (row.attempts, row.started_at, row.completed_at, row.duration_ms) == (2, NOW, NOW, 12.5)
    assert (row.output, row.output_size, row.updates) == ('{"n":1}', 7, '{"size":3}')
    assert json.loads(row.quality or "")["record_count"] == 2
    assert (row.scope, row.item_index, row.ends_item, row.item_params) == ("", None, False, None)
    assert (row.error, row.error_category) == (None, None)
    assert [(each.event_type, each.step_name, each.path, each.metadata) for each in change.events] == [
        ("own", "a", "a", '{"k":1}')
    ]
    assert scope.run.tally.completed == ["a"]


def test_the_last_step_completes_the_scope() -> None:
    scope = run_scope(AB)
    assert apply(scope, StepResult.ok()) is None
    assert apply(scope, StepResult.ok()) is COMPLETED
    assert [row.ends_item for row in written(scope).visits] == [False, False]


def test_a_step_that_returned_nothing_stores_null_and_can_be_read() -> None:
    scope = run_scope(AB)
    apply(scope, StepResult.ok())
    (row,) = written(scope).visits
    assert (row.output, row.updates, row.quality) == ("null", None, None)
    assert scope.context.has_output("a")


def test_a_skipped_step_stores_its_reason_and_has_no_output() -> None:
    scope = run_scope(AB)
    assert apply(scope, StepResult.skip("nothing to do")) is None
    (row,) = written(scope).visits
    assert (row.status, row.error, row.output, row.output_size) == (StepStatus.SKIPPED, "nothing to do", None, 0)
    assert not scope.context.has_output("a")
    assert scope.run.tally.skipped == ["a"]
    assert step_name(scope) == "b"


def test_a_failed_step_ends_the_scope_without_a_row_and_stays_at_the_step() -> None:
    scope = run_scope(AB)
    result = StepResult.fail("no", "TRANSIENT", events=[StepEvent("own")])
    assert apply(scope, result, attempts=3) == Outcome(RunStatus.FAILED, "a", "no", "TRANSIENT")
    assert (step_name(scope), scope.cursor.visit, scope.last_output) == ("a", 1, None)
    change = written(scope)
    assert change.visits == ()
    assert [(each.event_type, each.path) for each in change.events] == [
        ("step_started", "a"),
        ("own", "a"),
        ("step_failed", "a"),
    ]
    assert json.loads(change.events[-1].metadata) == {
        "duration_ms": 12.5,
        "attempts": 3,
        "error_category": "TRANSIENT",
        "error": "no",
    }
    (metric,) = scope.run.tally.metrics
    assert (metric.name, metric.status, metric.attempts, metric.duration_ms) == ("a", StepStatus.FAILED, 3, 12.5)
    assert scope.run.pending.open_visits == {}


def test_a_failure_that_is_tolerated_adds_a_row_and_the_run_continues() -> None:
    scope = run_scope(Workflow("w", [plain("a", on_error="continue"), plain("b")]))
    assert apply(scope, StepResult.fail("no", "TRANSIENT", output={"part": 1})) is None
    (row,) = written(scope).visits
    assert (row.status, row.error, row.error_category) == (StepStatus.FAILED, "no", "TRANSIENT")
    assert scope.context.get_output("a") == {"part": 1}
    assert scope.run.tally.failed == ["a"]
    assert step_name(scope) == "b"


def test_a_tolerated_failure_of_the_last_step_completes_the_scope() -> None:
    assert apply(run_scope(Workflow("w", [plain("a", on_error="continue")])), StepResult.fail("no")) is COMPLETED


@pytest.mark.parametrize("workflow", [AB, Workflow("w", [plain("a")])])
def test_a_stop_ends_the_scope_after_the_step(workflow: Workflow) -> None:
    scope = run_scope(workflow)
    assert apply(scope, StepResult.stop("enough", {"n": 1})) == Outcome(RunStatus.STOPPED, stop_reason="enough")
    (row,) = written(scope).visits
    assert (row.status, row.output, row.error) == (StepStatus.COMPLETED, '{"n":1}', None)
    assert scope.cursor.has_moved
    assert scope.run.tally.completed == ["a"]


def test_a_choice_reports_the_steps_that_it_jumped_over() -> None:
    scope = run_scope(CHOOSING)
    assert apply(scope, StepResult.ok({"next_step": "end"})) is None
    assert step_name(scope) == "end"
    change = written(scope)
    (event,) = change.events
    assert (event.event_type, event.step_name, event.path) == ("step_skipped", "between", "between")
    assert json.loads(event.metadata) == {"reason": "choose went past it"}
    assert event.seq > change.visits[0].seq
    assert scope.run.tally.skipped == ["between"]


def test_a_choice_of_the_end_completes_the_scope() -> None:
    scope = run_scope(CHOOSING)
    assert apply(scope, StepResult.ok({"next_step": None})) is COMPLETED
    assert [each.step_name for each in written(scope).events] == ["between", "end"]


def test_next_step_jumps_over_steps_too() -> None:
    scope = run_scope(Workflow("w", [plain("a", next_step="c"), plain("b"), plain("c")]))
    apply(scope, StepResult.ok())
    assert step_name(scope) == "c"
    assert [(each.event_type, each.step_name) for each in written(scope).events] == [("step_skipped", "b")]


@pytest.mark.parametrize("output", [None, {}, {"next_step": "gone"}, {"next_step": 1}, ["end"]])
def test_a_choice_without_a_usable_target_fails(output: object) -> None:
    scope = run_scope(CHOOSING)
    error = "choice 'choose' must return an output whose 'next_step' is a step of the workflow or None"
    assert apply(scope, StepResult.ok(output)) == Outcome(RunStatus.FAILED, "choose", error, "CONFIGURATION")
    assert step_name(scope) == "choose"


def test_a_choice_that_failed_keeps_its_own_error() -> None:
    outcome = apply(run_scope(CHOOSING), StepResult.fail("no", "TRANSIENT"))
    assert outcome == Outcome(RunStatus.FAILED, "choose", "no", "TRANSIENT")


def test_a_choice_that_was_skipped_is_followed_by_the_next_in_the_list() -> None:
    scope = run_scope(CHOOSING)
    assert apply(scope, StepResult.skip("not needed", {"next_step": "end"})) is None
    assert step_name(scope) == "between"


def test_only_the_first_row_of_an_item_has_its_params_and_only_the_last_ends_it() -> None:
    scope = item_scope(Workflow("i", [plain("a"), plain("b"), plain("c")]))
    outcomes = [apply(scope, StepResult.ok({"n": n})) for n in range(3)]
    assert outcomes == [None, None, COMPLETED]
    rows = written(scope).visits
    assert [(row.path, row.item_params, row.ends_item) for row in rows] == [
        ("each[4]/a", '{"item":5}', False),
        ("each[4]/b", None, False),
        ("each[4]/c", None, True),
    ]
    assert {(row.scope, row.item_index) for row in rows} == {("each[4]", 4)}
    assert scope.last_output == Document('{"n":2}')


def test_the_only_row_of_an_item_has_its_params_and_ends_it() -> None:
    scope = item_scope(Workflow("i", [plain("a")]))
    assert apply(scope, StepResult.ok()) is COMPLETED
    (row,) = written(scope).visits
    assert (row.item_params, row.ends_item) == ('{"item":5}', True)


def test_a_stop_does_not_end_an_item() -> None:
    scope = item_scope(Workflow("i", [plain("a")]))
    outcome = apply(scope, StepResult.stop("enough"))
    assert outcome == Outcome(RunStatus.STOPPED, stop_reason="enough")
    assert [row.ends_item for row in written(scope).visits] == [False]


def test_the_tally_of_the_run_leaves_out_the_steps_of_items() -> None:
    scope = item_scope(Workflow("i", [plain("a"), plain("b")]))
    apply(scope, StepResult.ok())
    apply(scope, StepResult.fail("no"))
    assert scope.run.tally.metrics == []


def test_an_item_names_the_steps_that_it_jumped_over_by_its_own_path() -> None:
    scope = item_scope(CHOOSING)
    apply(scope, StepResult.ok({"next_step": "end"}))
    assert [each.path for each in written(scope).events] == ["each[4]/between"]


def position(workflow: Workflow, **params: Any) -> Position:
    return Position(Cursor(workflow), WorkflowContext(params=params))


def test_a_replay_without_rows_stays_at_the_first_step() -> None:
    place = position(AB, size=1)
    replay(place, "r", [])
    assert (place.cursor.step, place.cursor.has_moved, place.last_output) == (AB.steps[0], False, None)
    assert dict(place.context.params) == {"size": 1}


def test_a_replay_restores_cursor_context_and_tally() -> None:
    place = position(AB, size=1, kept=2)
    quality = json.dumps(asdict(QualityMetrics(record_count=2)))
    replay(place, "r", [past_visit("a", output='{"n":1}', updates='{"size":3}', quality=quality)])
    assert place.cursor.step is AB.steps[1]
    assert dict(place.context.params) == {"size": 3, "kept": 2}
    assert place.context.get_output("a", "n") == 1
    assert place.context.get_quality("a") == QualityMetrics(record_count=2)
    assert place.last_output == Document('{"n":1}')
    assert place.tally.completed == ["a"]


def test_later_rows_replace_the_values_of_earlier_ones() -> None:
    workflow = Workflow("w", [plain("a"), Step.choice("again", lambda context: True, "a", "b"), plain("b")])
    rows = [
        past_visit("a", output="1", updates='{"x":1,"y":1}'),
        past_visit("again", kind=StepType.CHOICE, output='{"next_step":"a"}'),
        past_visit("a#2", output="2", updates='{"x":2}'),
    ]
    place = position(workflow)
    replay(place, "r", rows)
    assert dict(place.context.params) == {"x": 2, "y": 1}
    assert place.context.get_output("a") == 2
    assert place.cursor.segment == "again#2"


def test_a_row_without_output_leaves_none_to_read() -> None:
    place = position(AB)
    rows = [past_visit("a", output="1"), past_visit("b", status=StepStatus.SKIPPED)]
    replay(place, "r", rows)
    assert place.last_output is None
    assert not place.context.has_output("b")
    assert (place.tally.completed, place.tally.skipped, place.cursor.step) == (["a"], ["b"], None)


def test_a_wait_that_had_begun_keeps_its_end_and_is_no_visit() -> None:
    workflow = Workflow("w", [plain("a"), Step.wait("pause", 60), plain("b")])
    until = "2026-01-01T00:01:00+00:00"
    began = past_visit(
        "pause@until", name="pause", kind=StepType.WAIT, status=StepStatus.WAITING, output=json.dumps(until)
    )
    place = position(workflow)
    replay(place, "r", [past_visit("a"), began])
    assert place.waits == {"pause": until}
    assert place.cursor.step is workflow.steps[1]
    assert len(place.tally.metrics) == 1


def test_an_override_changes_params_and_is_no_visit() -> None:
    override = past_visit("@resume#2", status=StepStatus.OVERRIDE, updates='{"size":9}', output='"unread"')
    place = position(AB, size=1)
    replay(place, "r", [past_visit("a", output="1", updates='{"size":2}'), override])
    assert dict(place.context.params) == {"size": 9}
    assert place.cursor.step is AB.steps[1]
    assert place.last_output == Document("1")
    assert len(place.tally.metrics) == 1


def test_an_update_after_an_override_counts() -> None:
    override = past_visit("@resume#2", status=StepStatus.OVERRIDE, updates='{"size":9}')
    place = position(AB, size=1)
    replay(place, "r", [override, past_visit("a", updates='{"size":2}')])
    assert dict(place.context.params) == {"size": 2}


def test_a_replay_counts_the_steps_that_a_choice_jumped_over() -> None:
    place = position(CHOOSING)
    replay(place, "r", [past_visit("choose", kind=StepType.CHOICE, output='{"next_step":"end"}')])
    assert place.tally.skipped == ["between"]


def test_a_replay_refuses_rows_that_do_not_fit() -> None:
    with pytest.raises(WorkflowChangedError, match="finished step 'b' is no longer at this position"):
        replay(position(AB), "r", [past_visit("b")])


def test_a_replay_makes_of_the_rows_what_the_run_made_of_the_results() -> None:
    scope = run_scope(CHOOSING, params={"size": 1})
    apply(scope, StepResult.ok({"next_step": "end"}))
    apply(scope, StepResult.ok({"n": 2}, {"size": 2}, QualityMetrics(null_count=1)))
    place = position(CHOOSING, size=1)
    replay(place, "r", written(scope).visits)
    assert place.context.to_dict() == scope.context.to_dict()
    assert (place.cursor.step, place.last_output) == (scope.cursor.step, scope.last_output)
    assert place.tally.metrics == scope.run.tally.metrics
    assert place.tally.skipped == scope.run.tally.skipped
