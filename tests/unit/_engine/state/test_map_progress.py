"""Which items of a map are finished, and the stored rows of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_async import CorruptRecordError, Step, Workflow, WorkflowChangedError
from spine_async._engine.state.index_table import IndexSet
from spine_async._engine.state.item_digest import item_digest
from spine_async._engine.state.map_progress import MapProgress
from spine_async._engine.state.step_progress import new_progress
from spine_async._model.map_step import MapStep
from tests.unit._engine.builders import visit_row


@given(st.lists(st.integers(min_value=0, max_value=20), unique=True))
def test_an_index_set_holds_what_a_set_holds(added: list[int]) -> None:
    indexes, model = IndexSet(), set[int]()
    for index in added:
        indexes.add(index)
        model.add(index)
        assert {each for each in range(22) if each in indexes} == model
        assert len(indexes) == len(model)


@given(st.sets(st.integers(min_value=0, max_value=20_000), max_size=5))
def test_the_last_index_is_the_largest(added: set[int]) -> None:
    indexes = IndexSet()
    for index in added:
        indexes.add(index)
    assert indexes.last == max(added, default=-1)


def progress_of(*, collect: bool = True) -> MapProgress:
    iterator = Workflow(steps=[Step.lambda_("a", lambda context, config: None)])
    workflow = Workflow("w", [Step.map("each", items=[0, 1], iterator=iterator, collect=collect)])
    (step,) = workflow.steps
    assert isinstance(step, MapStep)
    progress = new_progress("r", "each", step, keeps_digests=True)
    assert isinstance(progress, MapProgress)
    return progress


def test_outputs_are_kept_only_if_the_map_collects_them() -> None:
    for collect, outputs in ((True, {1: "{}"}), (False, {})):
        progress = progress_of(collect=collect)
        progress.finish(1, "{}")
        assert (1 in progress.finished, 0 in progress.finished, progress.outputs) == (True, False, outputs)


def test_an_item_is_compared_with_the_one_that_began_at_its_index() -> None:
    progress = progress_of()
    progress.keep_digest(0, item_digest('{"a":1,"b":2}'))
    assert progress.is_same_item(0, item_digest('{"b":2,"a":1}'))
    assert not progress.is_same_item(0, item_digest('{"a":1,"b":3}'))
    assert progress.is_same_item(1, item_digest('{"a":1,"b":3}'))
    progress.drop_digest(0)
    assert progress.is_same_item(0, item_digest('{"a":1,"b":3}'))


@pytest.mark.parametrize("scope", ["", "other[0]", "each#2[0]"])
def test_a_row_of_another_map_is_refused(scope: str) -> None:
    with pytest.raises(CorruptRecordError, match="the stored path 'p/a' does not belong to the map 'each'"):
        progress_of().add(visit_row("p/a", scope=scope))


@pytest.mark.parametrize("scope", ["each", "each[x]"])
def test_a_row_inside_of_the_map_that_belongs_to_no_item_is_a_changed_definition(scope: str) -> None:
    with pytest.raises(WorkflowChangedError, match="belongs to no item"):
        progress_of().add(visit_row("p/a", scope=scope))
