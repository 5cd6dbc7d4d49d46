"""Moves of a cursor, and the stored visits that it refuses to replay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spine_async import Step, Workflow, WorkflowChangedError
from spine_async._engine.state.cursor import Cursor, Jump, jump_of
from spine_async._model.status import StepStatus, StepType
from tests.unit._engine.builders import past_visit, plain

THREE = Workflow("w", [plain("a"), plain("b"), plain("c")])
CHOOSING = Workflow(
    "w", [plain("load"), Step.choice("choose", lambda context: True, "load", "save"), plain("check"), plain("save")]
)


def place(cursor: Cursor) -> tuple[str | None, int, str]:
    return (cursor.step.name if cursor.step is not None else None, cursor.visit, cursor.segment)


def test_a_new_cursor_points_to_the_first_step_or_to_the_given_one() -> None:
    assert place(Cursor(THREE)) == ("a", 1, "a")
    assert place(Cursor(THREE, "b")) == ("b", 1, "b")


def test_advance_visits_the_steps_in_order_and_ends_behind_the_last() -> None:
    cursor = Cursor(THREE)
    places = []
    while cursor.step is not None:
        places.append(place(cursor))
        assert list(cursor.advance()) == []
    assert places == [("a", 1, "a"), ("b", 1, "b"), ("c", 1, "c")]
    assert place(cursor) == (None, 0, "")


def test_a_jump_forwards_returns_the_steps_between() -> None:
    cursor = Cursor(THREE)
    assert list(cursor.advance(Jump("c"))) == ["b"]
    assert place(cursor) == ("c", 1, "c")


def test_a_jump_to_the_end_returns_all_remaining_steps() -> None:
    cursor = Cursor(THREE)
    assert list(cursor.advance(Jump(None))) == ["b", "c"]
    assert place(cursor) == (None, 0, "")


def test_a_jump_backwards_jumps_over_nothing_and_counts_the_next_visit() -> None:
    cursor = Cursor(THREE)
    cursor.advance()
    assert list(cursor.advance(Jump("a"))) == []
    assert place(cursor) == ("a", 2, "a#2")
    cursor.advance()
    assert place(cursor) == ("b", 2, "b#2")
    cursor.advance()
    assert place(cursor) == ("c", 1, "c")


def test_a_jump_to_the_step_itself_visits_it_again() -> None:
    cursor = Cursor(THREE)
    assert list(cursor.advance(Jump("a"))) == []
    assert place(cursor) == ("a", 2, "a#2")


def test_a_step_that_was_visited_before_is_not_reported_as_jumped_over() -> None:
    cursor = Cursor(THREE)
    cursor.advance()
    cursor.advance(Jump("a"))
    assert list(cursor.advance(Jump(None))) == ["c"]


def test_next_step_replaces_the_next_in_the_list_but_not_a_jump() -> None:
    workflow = Workflow("w", [plain("a", next_step="c"), plain("b"), plain("c")])
    cursor = Cursor(workflow)
    assert list(cursor.advance()) == ["b"]
    assert place(cursor) == ("c", 1, "c")
    other = Cursor(workflow)
    other.advance(Jump("b"))
    assert place(other) == ("b", 1, "b")


def test_has_moved_is_true_after_the_first_step() -> None:
    cursor = Cursor(THREE, "c")
    assert not cursor.has_moved
    cursor.advance(Jump("c"))
    assert cursor.has_moved


def test_following_names_the_next_step_in_the_list() -> None:
    cursor = Cursor(THREE, "b")
    assert cursor.following == "c"
    cursor.advance()
    assert cursor.following is None
    cursor.advance()
    assert cursor.following is None


def test_has_step_knows_the_names_of_the_workflow_only() -> None:
    assert Cursor(THREE).has_step("c")
    assert not Cursor(THREE).has_step("d")


@pytest.mark.parametrize(
    ("output", "jump"),
    [
        ({"next_step": "b"}, Jump("b")),
        ({"next_step": None, "why": 1}, Jump(None)),
        ({"next_step": "d"}, None),
        ({"next_step": 1}, None),
        ({"next_step": ["b"]}, None),
        ({}, None),
        (None, None),
        ("b", None),
    ],
)
def test_the_jump_of_an_output_needs_a_known_target(output: object, jump: Jump | None) -> None:
    assert jump_of(output, Cursor(THREE)) == jump


def test_a_replay_moves_as_the_stored_run_did() -> None:
    cursor = Cursor(CHOOSING)
    rows = [
        past_visit("load"),
        past_visit("choose", kind=StepType.CHOICE, output='{"next_step": "load"}'),
        past_visit("load#2"),
        past_visit("choose#2", kind=StepType.CHOICE, output='{"next_step": "save"}'),
    ]
    assert [list(cursor.replay("r", row)) for row in rows] == [[], [], [], ["check"]]
    assert place(cursor) == ("save", 1, "save")


@pytest.mark.parametrize("path", ["a", "each[3]/a", "outer[0]/each#2[3]/a"])
def test_a_replay_compares_the_last_part_of_the_path(path: str) -> None:
    cursor = Cursor(THREE)
    cursor.replay("r", past_visit(path))
    assert place(cursor) == ("b", 1, "b")


@pytest.mark.parametrize("status", [StepStatus.SKIPPED, StepStatus.FAILED])
def test_a_choice_that_did_not_complete_is_followed_by_the_next_in_the_list(status: StepStatus) -> None:
    cursor = Cursor(CHOOSING, "choose")
    assert list(cursor.replay("r", past_visit("choose", kind=StepType.CHOICE, status=status))) == []
    assert place(cursor) == ("check", 1, "check")


def test_the_output_of_a_lambda_is_no_jump() -> None:
    cursor = Cursor(THREE)
    cursor.replay("r", past_visit("a", output='{"next_step": "c"}'))
    assert place(cursor) == ("b", 1, "b")


@pytest.mark.parametrize(
    ("start", "row", "step", "problem"),
    [
        ("load", {"path": "gone"}, "gone", "is missing"),
        ("load", {"path": "load", "kind": StepType.WAIT}, "load", "was a wait step and is now a lambda step"),
        ("check", {"path": "load", "kind": StepType.WAIT}, "load", "was a wait step and is now a lambda step"),
        ("load", {"path": "save"}, "save", "is no longer at this position; step 'load' is"),
        ("load", {"path": "load#2"}, "load", "is no longer at this position; step 'load' is"),
        ("load", {"path": "each[0]/load#2"}, "load", "is no longer at this position; step 'load' is"),
        (None, {"path": "save"}, "save", "is no longer at this position; the end of the workflow is"),
        (
            "choose",
            {"path": "choose", "kind": StepType.CHOICE, "output": '{"next_step": "gone"}'},
            "choose",
            "jumped to a step that is missing",
        ),
        ("choose", {"path": "choose", "kind": StepType.CHOICE}, "choose", "jumped to a step that is missing"),
    ],
)
def test_a_replay_refuses_a_visit_that_the_definition_would_not_make(
    start: str | None, row: dict[str, Any], step: str, problem: str
) -> None:
    cursor = Cursor(CHOOSING, start or "save")
    if start is None:
        cursor.advance()
    before = place(cursor)
    with pytest.raises(WorkflowChangedError) as caught:
        cursor.replay("r", past_visit(**row))
    assert (caught.value.run_id, caught.value.step) == ("r", step)
    assert f"finished step {step!r} {problem};" in str(caught.value)
    assert place(cursor) == before


def test_a_stored_jump_to_the_end_is_replayed() -> None:
    cursor = Cursor(CHOOSING, "choose")
    row = past_visit("choose", kind=StepType.CHOICE, output=json.dumps({"next_step": None}))
    assert list(cursor.replay("r", row)) == ["check", "save"]
    assert cursor.step is None
