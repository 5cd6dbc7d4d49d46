"""The contract of `ScheduleStore`."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, TypedDict, Unpack, cast

import pytest

from spine_async._model.run_change import RunEnd
from spine_async._model.run_row import NewRun
from spine_async._model.schedule_state import NewSchedule, ScheduleChange, StoredSchedule
from spine_async._model.status import RunStatus
from spine_async.ports import RunStore, ScheduleStore, keeps_schedules
from spine_async.testing.conformance.due_rows import due_run
from spine_async.testing.conformance.rows import change, committed, created, loaded, moment, taken_over


class _ScheduleRuns(RunStore, ScheduleStore, Protocol):
    """A store with the capability."""


class _Values(TypedDict, total=False):
    timing: str
    queue: str
    overlap: str
    params: str


def _keeper(store: RunStore) -> _ScheduleRuns:
    if not keeps_schedules(store):
        pytest.skip("the store keeps no schedules")
    return cast("_ScheduleRuns", store)


def _new(name: str = "nightly", at: float = 0.0, **values: Unpack[_Values]) -> NewSchedule:
    plain = NewSchedule(
        name=name,
        workflow_name="orders",
        timing='{"every":60.0}',
        queue="default",
        overlap="skip",
        params='{"day":1}',
        registered_at=moment(at),
    )
    return replace(plain, **values)


def _change(stored: StoredSchedule, at: float, run: NewRun | None = None) -> ScheduleChange:
    fired_at = moment(at) if run is not None else None
    return ScheduleChange(
        name=stored.name,
        version=stored.version,
        decided_at=moment(at),
        is_paused=False,
        waiting=(),
        run=run,
        fired_at=fired_at,
    )


async def _one(store: ScheduleStore, name: str = "nightly") -> StoredSchedule:
    (found,) = await store.schedules([name])
    return found


class ScheduleContract:
    """Definitions of schedules, and changes of them with the runs that they start."""

    async def test_a_new_schedule_has_decided_up_to_its_registration(self, store: RunStore) -> None:
        store = _keeper(store)
        assert await store.schedules() == []
        await store.register_schedules([_new(at=5)])
        assert await _one(store) == StoredSchedule(
            name="nightly",
            workflow_name="orders",
            timing='{"every":60.0}',
            queue="default",
            overlap="skip",
            params='{"day":1}',
            registered_at=moment(5),
            version=1,
            decided_at=moment(5),
            is_paused=False,
            last_run_id=None,
            last_fired_at=None,
            is_busy=False,
            waiting=(),
        )

    async def test_the_same_definition_again_changes_nothing(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        before = await _one(store)
        await store.register_schedules([_new(at=100)])
        assert await _one(store) == before

    async def test_another_definition_replaces_it_and_decides_up_to_now(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        await store.change_schedule(replace(_change(await _one(store), 50), is_paused=True))
        await store.register_schedules([_new(at=20, overlap="allow")])
        found = await _one(store)
        assert (found.overlap, found.version, found.decided_at, found.is_paused) == ("allow", 3, moment(50), True)
        await store.register_schedules([_new(at=70, params="{}")])
        assert (await _one(store)).decided_at == moment(70)

    async def test_schedules_are_listed_by_name(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new("b"), _new("a"), _new("B")])
        assert [each.name for each in await store.schedules()] == ["B", "a", "b"]
        assert [each.name for each in await store.schedules(["b", "c", "B"])] == ["B", "b"]

    async def test_a_change_stores_its_run(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        assert await store.change_schedule(_change(await _one(store), 60, due_run("nightly@1"))) is True
        found = await _one(store)
        assert (found.version, found.decided_at, found.last_fired_at) == (2, moment(60), moment(60))
        assert (found.last_run_id, found.is_busy) == ("nightly@1", True)
        assert (await loaded(store, "nightly@1")).status is RunStatus.PENDING

    async def test_of_two_changes_of_one_version_only_the_first_is_made(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        seen = await _one(store)
        assert await store.change_schedule(_change(seen, 60, due_run("nightly@1"))) is True
        assert await store.change_schedule(_change(seen, 60, due_run("nightly@2"))) is False
        assert await store.load("nightly@2") is None
        assert (await _one(store)).last_run_id == "nightly@1"

    async def test_a_schedule_is_busy_until_its_last_run_has_ended(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        await store.change_schedule(_change(await _one(store), 60, due_run("nightly@1")))
        claim = await taken_over(store, "nightly@1")
        assert (await _one(store)).is_busy is True
        await committed(store, change(claim, end=RunEnd(RunStatus.FAILED, moment(9))))
        assert (await _one(store)).is_busy is False
        await store.delete(["nightly@1"])
        assert (await _one(store)).is_busy is False

    async def test_a_run_whose_id_is_taken_stays_and_the_change_is_made(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        await created(store, replace(due_run("nightly@1"), owner="worker-1"))
        assert await store.change_schedule(_change(await _one(store), 60, due_run("nightly@1"))) is True
        assert (await _one(store)).decided_at == moment(60)
        assert (await loaded(store, "nightly@1")).owner == "worker-1"

    async def test_waiting_firings_and_a_pause_are_kept(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        waiting = (moment(60), moment(120.000001))
        await store.change_schedule(replace(_change(await _one(store), 120), waiting=waiting, is_paused=True))
        found = await _one(store)
        assert (found.waiting, found.is_paused) == (waiting, True)

    async def test_a_schedule_that_is_not_stored_is_not_changed(self, store: RunStore) -> None:
        store = _keeper(store)
        await store.register_schedules([_new()])
        unknown = replace(_change(await _one(store), 60, due_run("other@1")), name="other")
        assert await store.change_schedule(unknown) is False
        assert await store.load("other@1") is None
