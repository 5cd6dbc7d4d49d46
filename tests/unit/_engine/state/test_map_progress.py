"""Which items of a map are finished, and the stored rows of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_async import CorruptRecordError
from spine_async._engine.state.map_progress import IndexSet, MapProgress
from tests.unit._engine.builders import visit_row


@given(st.lists(st.integers(min_value=0, max_value=20), unique=True))
def test_an_index_set_holds_what_a_set_holds(added: list[int]) -> None:
    indexes, model = IndexSet(), set[int]()
    for index in added:
        indexes.add(index)
        model.add(index)
        assert {each for each in range(22) if each in indexes} == model
        assert len(indexes) == len(model)


@given(st.permutations(range(12)))
def test_an_index_set_keeps_nothing_but_a_limit_once_no_index_is_missing(added: list[int]) -> None:
    indexes = IndexSet()
    for index in added:
        indexes.add(index)
    assert (indexes._limit, indexes._above) == (12, set())


def test_outputs_are_kept_only_if_the_map_collects_them() -> None:
    for collects, outputs in ((True, {1: "{}"}), (False, {})):
        progress = MapProgress("each", collects=collects)
        progress.finish(1, "{}")
        assert (1 in progress.finished, 0 in progress.finished, progress.outputs) == (True, False, outputs)


def test_stored_rows_are_those_of_the_items_own_steps() -> None:
    own = visit_row("each[1]/a", scope="each[1]")
    inner = visit_row("each[1]/inner[0]/b", scope="each[1]/inner[0]")
    again = visit_row("each[1]/inner#2[0]/b", scope="each[1]/inner#2[0]")
    other = visit_row("each[11]/a", scope="each[11]")
    progress = MapProgress("each", collects=True, rows=[own, inner, again, other])
    assert progress.stored_rows(1) == [own]
    assert progress.stored_rows(11) == [other]
    assert progress.stored_rows(0) == []
    assert progress.rows_below(1, "each[1]/inner") == [inner]
    assert progress.rows_below(1, "each[1]/inner#2") == [again]
    assert progress.rows_below(11, "each[1]/inner") == []


def test_a_finished_item_forgets_its_stored_rows() -> None:
    rows = [visit_row(f"each[{index}]/a", scope=f"each[{index}]") for index in range(2)]
    progress = MapProgress("each", collects=False, rows=rows)
    progress.finish(0, "null")
    assert progress.stored_rows(0) == []
    assert progress.stored_rows(1) == [rows[1]]


@pytest.mark.parametrize("scope", ["", "each", "other[0]", "each#2[0]", "each[x]"])
def test_a_row_of_another_map_is_refused(scope: str) -> None:
    with pytest.raises(CorruptRecordError, match="the stored path 'p/a' does not belong to the map 'each'"):
        MapProgress("each", collects=True, rows=[visit_row("p/a", scope=scope)])
