"""The numbers of a run's rows and events, and the state after a failed commit."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_async._engine.state.open_visit import OpenVisit
from spine_async._engine.state.pending_writes import PendingWrites
from spine_async._model.run_change import RunChange, RunEnd
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.visit_row import EventRow, VisitRow
from tests.unit._engine.builders import EPOCH, FIRST_SEQ, NOW, a_claim, visit_row


def pending_writes(*, records_events: bool = True) -> PendingWrites:
    return PendingWrites(a_claim(), records_events=records_events)


def begin(pending: PendingWrites, path: str, *, started: float = 0.0) -> OpenVisit:
    visit = OpenVisit(path, path, NOW, started)
    pending.begin_visit(visit)
    return visit


def event(kind: str, path: str | None = None) -> EventRow:
    return EventRow(kind, None, NOW, path=path)


def settle(pending: PendingWrites, path: str, *, ends_item: bool = False, item_index: int | None = None) -> VisitRow:
    row = visit_row(path, ends_item=ends_item, item_index=item_index)
    pending.add_visit(begin(pending, path), row, ())
    return row


def drain(pending: PendingWrites, token: str = "t") -> RunChange:
    return pending.drain(NOW, token)


def numbers(change: RunChange) -> list[tuple[int, str]]:
    """Everything in the change that has a number, as (number, meaning), in the order of the numbers."""
    found = [(each.seq, each.event_type) for each in change.events]
    for row in change.visits:
        found.append((row.seq, f"end of {row.path}"))
        if row.started_seq is not None:
            found.append((row.started_seq, f"start of {row.path}"))
        if row.item_seq is not None:
            found.append((row.item_seq, f"item of {row.path}"))
    return sorted(found)


def test_a_visit_takes_a_number_for_its_start_and_one_for_its_end() -> None:
    pending = pending_writes()
    row = settle(pending, "a")
    change = drain(pending)
    assert numbers(change) == [(10, "start of a"), (11, "end of a")]
    assert (change.expected_seq, change.next_seq, change.events) == (10, 12, ())
    assert (row.epoch, row.commit_id, row.records_events) == (EPOCH, "t", True)


def test_own_events_and_retries_are_numbered_between_start_and_end() -> None:
    pending = pending_writes()
    visit = begin(pending, "a")
    visit.events = (event("step_retrying"),)
    pending.add_visit(visit, visit_row("a"), [event("own"), event("own too")])
    expected = [(10, "start of a"), (11, "step_retrying"), (12, "own"), (13, "own too"), (14, "end of a")]
    assert numbers(drain(pending)) == expected


def test_an_announced_visit_has_its_start_as_an_event() -> None:
    pending = pending_writes()
    visit = begin(pending, "each")
    pending.announce_visit(visit)
    pending.announce_visit(visit)
    settle(pending, "each[0]/a", ends_item=True, item_index=0)
    pending.add_visit(visit, visit_row("each"), ())
    change = drain(pending)
    assert numbers(change) == [
        (10, "step_started"),
        (11, "start of each[0]/a"),
        (12, "end of each[0]/a"),
        (13, "item of each[0]/a"),
        (14, "end of each"),
    ]
    assert (change.events[0].path, change.next_seq) == ("each", 15)


def test_a_marker_and_its_event_have_the_same_number() -> None:
    pending = pending_writes()
    marker = visit_row("@resume#2", status=StepStatus.OVERRIDE)
    pending.add_marker(marker, event("workflow_resumed"))
    settle(pending, "a")
    change = drain(pending)
    assert (marker.seq, change.events[0].seq, marker.started_seq) == (10, 10, None)
    assert numbers(change)[2:] == [(11, "start of a"), (12, "end of a")]


def test_a_failed_visit_has_events_and_no_row() -> None:
    pending = pending_writes()
    visit = begin(pending, "a")
    visit.events = (event("step_retrying"),)
    pending.add_failed_visit(visit, [event("step_failed")])
    change = drain(pending)
    assert numbers(change) == [(10, "step_started"), (11, "step_retrying"), (12, "step_failed")]
    assert (change.visits, pending.open_visits) == ((), {})


def test_without_events_each_row_takes_one_number() -> None:
    pending = pending_writes(records_events=False)
    pending.add_marker(visit_row("@resume#2", status=StepStatus.OVERRIDE), event("workflow_resumed"))
    visit = begin(pending, "each")
    visit.events = (event("step_retrying"),)
    pending.announce_visit(visit)
    inner = settle(pending, "each[0]/a", ends_item=True)
    pending.add_visit(visit, visit_row("each"), [event("own")])
    pending.add_failed_visit(begin(pending, "b"), [event("step_failed")])
    pending.add_events(event("map_item_failed"))
    change = drain(pending)
    assert numbers(change) == [(10, "end of @resume#2"), (11, "end of each[0]/a"), (12, "end of each")]
    assert (change.next_seq, change.events, inner.records_events) == (13, (), False)


class Entry(NamedTuple):
    """Something that a run adds to its pending writes.

    Attributes:
        is_announced: Whether the `step_started` of the visit was added before.
        retries: Number of `step_retrying` events of the visit.
        own: Number of the visit's other events, or of free events.
        ends_item: Whether the visit is the last of a map item.
    """

    kind: str
    is_announced: bool
    retries: int
    own: int
    ends_item: bool

    def add(self, pending: PendingWrites, path: str) -> None:
        if self.kind == "events":
            pending.add_events(*self._own_events())
        elif self.kind == "marker":
            pending.add_marker(visit_row(path), event("marker"))
        else:
            self._add_visit(pending, path)

    def _add_visit(self, pending: PendingWrites, path: str) -> None:
        visit = begin(pending, path)
        if self.is_announced:
            pending.announce_visit(visit)
        visit.events = tuple(event("step_retrying") for _ in range(self.retries))
        if self.kind == "visit":
            pending.add_visit(visit, visit_row(path, ends_item=self.ends_item), self._own_events())
        else:
            pending.add_failed_visit(visit, self._own_events())

    def _own_events(self) -> list[EventRow]:
        return [event("own") for _ in range(self.own)]


ENTRIES = st.builds(
    Entry,
    kind=st.sampled_from(["visit", "failed", "marker", "events"]),
    is_announced=st.booleans(),
    retries=st.integers(0, 2),
    own=st.integers(0, 2),
    ends_item=st.booleans(),
)
MIXES = st.lists(ENTRIES, max_size=8)


@given(mix=MIXES, records_events=st.booleans())
def test_numbers_have_no_gap_and_none_is_used_twice_but_by_a_marker(mix: list[Entry], records_events: bool) -> None:
    pending = pending_writes(records_events=records_events)
    for index, entry in enumerate(mix):
        entry.add(pending, f"s{index}")
    change = drain(pending)
    used = sorted({number for number, _ in numbers(change)})
    assert used == list(range(FIRST_SEQ, change.next_seq))
    markers = [entry.kind for entry in mix].count("marker") if records_events else 0
    assert len(numbers(change)) == len(used) + markers
    assert [row.seq for row in change.visits] == sorted(row.seq for row in change.visits)
    assert [each.seq for each in change.events] == sorted(each.seq for each in change.events)


@given(mix=MIXES, split=st.integers(0, 8), fails=st.booleans(), records_events=st.booleans())
def test_two_commits_store_what_one_would_store_even_if_the_first_try_fails(
    mix: list[Entry], split: int, fails: bool, records_events: bool
) -> None:
    pending, whole = (pending_writes(records_events=records_events) for _ in range(2))
    stored = []
    for index, entry in enumerate(mix):
        entry.add(whole, f"s{index}")
    for index, entry in enumerate(mix[:split]):
        entry.add(pending, f"s{index}")
    first = drain(pending)
    if not fails:
        stored += numbers(first)
    for index, entry in enumerate(mix[split:], len(mix[:split])):
        entry.add(pending, f"s{index}")
    if fails:
        pending.restore()
    else:
        pending.committed(first)
    stored += numbers(drain(pending))
    assert stored == numbers(drain(whole))


def test_a_drain_takes_everything_and_later_entries_wait_for_the_next() -> None:
    pending = pending_writes()
    settle(pending, "a")
    first = drain(pending)
    settle(pending, "b")
    pending.committed(first)
    second = drain(pending, "u")
    assert [row.path for row in first.visits] == ["a"]
    assert numbers(second) == [(12, "start of b"), (13, "end of b")]
    assert (second.expected_seq, second.commit_id, second.visits[0].commit_id) == (12, "u", "u")


def test_a_failed_commit_puts_its_entries_in_front_under_the_same_numbers() -> None:
    pending = pending_writes()
    for path in ("a", "b"):
        settle(pending, path)
    first = numbers(drain(pending))
    settle(pending, "c")
    pending.restore()
    change = drain(pending, "u")
    assert [row.path for row in change.visits] == ["a", "b", "c"]
    assert numbers(change)[:4] == first
    assert change.expected_seq == FIRST_SEQ
    assert {row.commit_id for row in change.visits} == {"u"}


@pytest.mark.parametrize("times", [1, 2])
def test_a_restore_after_the_commit_has_no_effect(times: int) -> None:
    pending = pending_writes()
    settle(pending, "a")
    pending.committed(drain(pending))
    for _ in range(times):
        pending.restore()
    change = drain(pending)
    assert (change.visits, change.expected_seq, change.next_seq) == ((), 12, 12)


def test_a_second_restore_adds_nothing() -> None:
    pending = pending_writes()
    settle(pending, "a")
    drain(pending)
    pending.restore()
    pending.restore()
    assert [row.path for row in drain(pending).visits] == ["a"]


def test_clear_removes_what_is_not_drained() -> None:
    pending = pending_writes()
    settle(pending, "a")
    pending.clear()
    assert drain(pending).visits == ()


def test_a_change_has_claim_time_and_status() -> None:
    pending = pending_writes()
    pending.status = RunStatus.WAITING
    change = drain(pending)
    assert (change.run_id, change.key, change.epoch, change.at) == ("r", 3, EPOCH, NOW)
    assert (change.status, change.end, change.commit_id) == (RunStatus.WAITING, None, "t")


def test_the_first_end_is_kept_and_is_the_last_event() -> None:
    pending = pending_writes()
    settle(pending, "a")
    end = RunEnd(RunStatus.FAILED, NOW, error_step="a", error="no", error_category="INTERNAL")
    pending.close(end)
    pending.close(RunEnd(RunStatus.COMPLETED, NOW))
    change = drain(pending)
    assert change.end is end
    assert numbers(change)[2:] == [(12, "workflow_failed")]
    assert json.loads(change.events[0].metadata) == {"error_step": "a", "error": "no", "error_category": "INTERNAL"}


@pytest.mark.parametrize(
    ("end", "kind", "metadata"),
    [
        (RunEnd(RunStatus.COMPLETED, NOW), EventType.WORKFLOW_COMPLETED, {}),
        (RunEnd(RunStatus.STOPPED, NOW, stop_reason="enough"), EventType.WORKFLOW_STOPPED, {"reason": "enough"}),
    ],
)
def test_the_event_of_an_end_leaves_out_what_is_none(end: RunEnd, kind: str, metadata: dict[str, str]) -> None:
    pending = pending_writes()
    pending.close(end)
    (last,) = drain(pending).events
    assert (last.event_type, json.loads(last.metadata)) == (kind, metadata)


def test_an_end_survives_a_failed_commit() -> None:
    pending = pending_writes()
    settle(pending, "a")
    pending.close(RunEnd(RunStatus.COMPLETED, NOW))
    drain(pending)
    pending.restore()
    assert numbers(drain(pending))[2:] == [(12, "workflow_completed")]


def test_open_visits_are_those_that_began_and_are_not_settled() -> None:
    pending = pending_writes()
    kept, dropped = begin(pending, "kept"), begin(pending, "dropped")
    settle(pending, "settled")
    pending.drop_visit(dropped)
    pending.drop_visit(dropped)
    assert pending.open_visits == {"kept": kept}
    assert [row.path for row in drain(pending).visits] == ["settled"]


def test_visits_that_began_long_ago_are_announced_once() -> None:
    pending = pending_writes()
    begin(pending, "old", started=1.0)
    begin(pending, "new", started=1.1)
    assert pending.announce_visits(older_than_mono=1.0)
    assert not pending.announce_visits(older_than_mono=1.0)
    assert [(each.event_type, each.path) for each in drain(pending).events] == [("step_started", "old")]


def test_an_announced_visit_writes_events_that_came_since() -> None:
    pending = pending_writes()
    visit = begin(pending, "a")
    pending.announce_visits(older_than_mono=0.0)
    visit.events = (event("step_retrying"),)
    assert pending.announce_visits(older_than_mono=0.0)
    pending.add_visit(visit, visit_row("a"), ())
    assert numbers(drain(pending)) == [(10, "step_started"), (11, "step_retrying"), (12, "end of a")]


def test_a_run_without_events_has_none_to_announce() -> None:
    pending = pending_writes(records_events=False)
    begin(pending, "a")
    assert not pending.announce_visits(older_than_mono=0.0)
