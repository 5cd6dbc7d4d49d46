"""The contract of `ForkStore.fork`: a new run with a copy of the rows of another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, cast

import pytest

from spine_async._model.fork import ForkOutcome, NewFork
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import DueTime, NewRun
from spine_async._model.status import EventType, RunStatus, StepStatus
from spine_async._model.visit_filter import VisitFilter
from spine_async._model.visit_row import VisitRow
from spine_async.ports import ForkStore, RunStore, forks_runs
from spine_async.testing.conformance.rows import change, committed, created, event, loaded, moment, new_run, visit


class _Forker(RunStore, ForkStore, Protocol):
    """A store with the capability."""


def _forker(store: RunStore) -> _Forker:
    if not forks_runs(store):
        pytest.skip("the store cannot fork runs")
    return cast("_Forker", store)


def _new(run_id: str = "copy") -> NewRun:
    far = DueTime(moment(1e9))
    return replace(new_run(run_id, at=50), owner=None, due=far, started_by="fork", request_hash="r" * 32)


def _fork(until: int, *, run: NewRun | None = None, override: VisitRow | None = None, **outputs: str) -> NewFork:
    forked = event(EventType.WORKFLOW_FORKED, 0)
    return NewFork(
        run=run or _new(),
        source_id="run-1",
        source_created_at=moment(0),
        until=until,
        outputs=outputs,
        override=override,
        event=forked,
    )


async def _source(store: RunStore) -> Claim:
    """A run with events 1 to 8; visits end at 3, 5 and 8."""
    claim = await created(store)
    rows = [
        visit("load", 3, started_seq=2, updates='{"limit":6}'),
        visit("@resume#2", 4, status=StepStatus.OVERRIDE, updates='{"limit":7}', output=None),
        visit("each[0]/work", 5, item_index=0, item_params='{"item":1}'),
        visit("each", 8, started_seq=7),
    ]
    events = [event(EventType.WORKFLOW_RESUMED, 4), event("noted", 6, step="each")]
    await committed(store, change(claim, rows, events))
    return claim


class ForkContract:
    """What `fork` copies, and what it leaves alone."""

    async def test_rows_and_events_up_to_the_number_are_copied(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        before = await store.visits("run-1", VisitFilter()), await store.events("run-1", 0, 100)
        assert await store.fork(_fork(6)) is ForkOutcome.FORKED
        assert (await store.visits("run-1", VisitFilter()), await store.events("run-1", 0, 100)) == before
        copied = await store.visits("copy", VisitFilter())
        expected = [row for row in before[0] if row.seq <= 6]
        assert [row.path for row in copied] == ["load", "@fork@resume#2", "each[0]/work"]
        assert [replace(row, path="") for row in copied] == [replace(row, path="") for row in expected]
        events = await store.events("copy", 0, 100)
        assert events[:6] == [each for each in before[1] if each.seq <= 6]
        assert [(each.seq, each.event_type) for each in events[6:]] == [(7, "workflow_forked")]

    async def test_the_new_run_has_no_owner_and_names_its_source(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        await store.fork(_fork(3))
        run = await loaded(store, "copy")
        assert (run.status, run.epoch, run.owner, run.next_seq) == (RunStatus.PENDING, 0, None, 5)
        assert (run.forked_from, run.started_by, run.request_hash) == ("run-1", "fork", "r" * 32)
        assert (run.params, run.partition, run.created_at) == (_new().params, _new().partition, moment(50))
        assert (await loaded(store)).forked_from is None

    async def test_outputs_are_replaced_in_the_copy_only(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        await store.fork(_fork(3, load='{"ü":1}'))
        (row,) = await store.visits("copy")
        assert (row.output, row.output_size) == ('{"ü":1}', 8)
        (first, *_) = await store.visits("run-1")
        assert (first.output, first.output_size) == ('{"ok":true}', 11)

    async def test_changed_params_follow_the_copied_rows(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        override = visit("@fork", 0, status=StepStatus.OVERRIDE, updates='{"limit":9}', output=None)
        await store.fork(_fork(3, override=override))
        *_, last = await store.visits("copy")
        assert (last.path, last.seq, last.updates) == ("@fork", 4, '{"limit":9}')

    async def test_a_fork_can_be_claimed_and_committed_to(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        await store.fork(_fork(3))
        claim = await store.claim("copy", "worker-2", None, ttl=60)
        assert isinstance(claim, Claim)
        assert (claim.epoch, claim.next_seq) == (1, 5)
        await committed(store, change(claim, [visit("each", 6, started_seq=5)]))
        assert [row.path for row in await store.visits("copy")] == ["load", "each"]

    async def test_a_fork_can_be_forked(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        override = visit("@fork", 0, status=StepStatus.OVERRIDE, updates="{}", output=None)
        await store.fork(_fork(6, override=override))
        again = replace(_fork(7, run=_new("again"), override=override), source_id="copy", source_created_at=moment(50))
        assert await store.fork(again) is ForkOutcome.FORKED
        paths = [row.path for row in await store.visits("again")]
        assert paths == ["load", "@fork@fork@resume#2", "@fork@fork", "@fork"]

    async def test_a_repeated_call_changes_nothing(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        made = _fork(3)
        assert await store.fork(made) is ForkOutcome.FORKED
        assert await store.fork(made) is ForkOutcome.FORKED
        assert len(await store.events("copy", 0, 100)) == 4

    async def test_a_taken_id_and_a_missing_source_store_nothing(self, store: RunStore) -> None:
        store = _forker(store)
        await _source(store)
        await created(store, new_run("copy"))
        assert await store.fork(_fork(3)) is ForkOutcome.TAKEN
        assert await store.visits("copy") == []
        absent = replace(_fork(3, run=_new("other")), source_id="absent")
        assert await store.fork(absent) is ForkOutcome.NOT_FOUND
        later = replace(_fork(3, run=_new("other")), source_created_at=moment(1))
        assert await store.fork(later) is ForkOutcome.NOT_FOUND
        assert await store.load("other") is None
