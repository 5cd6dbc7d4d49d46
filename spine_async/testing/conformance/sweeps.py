"""Contract of sweeps: runs whose time has come become ready, and those of owners that are gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import anyio

from spine_async._model.run_change import RunEnd
from spine_async._model.run_row import DueTime
from spine_async._model.status import RunStatus
from spine_async.ports import RunStore
from spine_async.testing.conformance.due_rows import (
    at_seconds,
    claimed,
    due_run,
    due_store,
    in_seconds,
    names,
    now,
    request,
    state,
)
from spine_async.testing.conformance.rows import (
    change,
    committed,
    created,
    loaded,
    moment,
    new_run,
)


class SweepContract:
    """Only for stores with the capability `DueRunStore`."""

    async def test_a_delayed_run_is_not_due_yet(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("at", due=at_seconds(3600)), due_run("in", due=in_seconds(1800))])
        assert await claimed(store) == []
        assert [(await state(store, each)).is_due for each in ("at", "in")] == [False, False]
        next_due = (await store.sweep()).next_due
        assert next_due is not None
        assert 1700 < next_due <= 1800

    async def test_a_sweep_makes_runs_ready_whose_time_has_come(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("at", due=at_seconds(0.02)), due_run("in", due=in_seconds(0.02))])
        with anyio.fail_after(10):
            while not all([(await state(store, each)).is_due for each in ("at", "in")]):  # noqa: ASYNC110 (time passes)
                await anyio.sleep(0.005)
        assert sorted(names(await claimed(store))) == ["at", "in"]

    async def test_seconds_count_and_not_the_time_of_the_wall_clock(self, store: RunStore) -> None:
        """As if the wall clock had been set by an hour in either direction."""
        store = due_store(store)
        past, future = now() - timedelta(hours=1), now() + timedelta(hours=1)
        await store.create([due_run("later", due=DueTime(past, 600.0)), due_run("now", due=DueTime(future, 0.0))])
        assert names(await claimed(store)) == ["now"]
        assert (await state(store, "later")).is_due is False

    async def test_an_empty_store_has_nothing_due(self, store: RunStore) -> None:
        store = due_store(store)
        found = await store.sweep(gone=["nobody"], lapsed=["nobody"])
        assert (dict(found.owners), found.next_due) == ({}, None)
        assert await claimed(store) == []
        assert await store.states([]) == await store.states(["nobody"]) == []

    async def test_a_sweep_names_the_owners_of_held_runs(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, new_run("a", ttl=600))
        await created(store, new_run("b", ttl=0.0))
        await store.create([replace(new_run("c", ttl=500), owner="worker-5"), due_run("d")])
        ended = await created(store, replace(new_run("e"), owner="worker-6"))
        await committed(store, change(ended, end=RunEnd(RunStatus.FAILED, moment(60))))
        found = await store.sweep()
        assert dict(found.owners) == {"worker-1": True, "worker-5": False}
        assert found.next_due is not None
        assert 400 < found.next_due <= 500

    async def test_the_runs_of_an_owner_that_is_gone_become_ready_at_once(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, new_run(ttl=600))
        found = await store.sweep(gone=["worker-1"])
        assert dict(found.owners) == {}
        (taken,) = await store.claim_due(request())
        assert (taken.run.owner, taken.claim.epoch) == ("worker-1", 2)
        assert (await loaded(store)).claims_since_progress == 1

    async def test_a_lost_run_that_was_at_work_comes_before_those_that_waited(self, store: RunStore) -> None:
        store = due_store(store)
        for run in ("waited", "worked"):
            claim = await created(store, new_run(run, ttl=600))
            if run == "waited":
                await committed(store, change(claim, status=RunStatus.WAITING))
        await store.sweep(gone=["worker-1"])
        assert names(await store.claim_due(request(limit=1))) == ["worked"]

    async def test_the_runs_of_other_owners_stay_held(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, new_run(ttl=0.0))
        assert await claimed(store) == [], "only the caller can judge whether the owner still exists"
        await store.sweep(gone=["worker-2"], lapsed=["worker-2"])
        assert await store.claim_due(request()) == []

    async def test_the_runs_of_a_lapsed_owner_become_ready_when_their_leases_end(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([new_run("ended", ttl=0.0), new_run("leased", ttl=600)])
        found = await store.sweep(lapsed=["worker-1"])
        assert dict(found.owners) == {"worker-1": False}
        assert names(await store.claim_due(request())) == ["ended"]

    async def test_a_sweep_spares_runs_of_a_lapsed_owner(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([new_run("stranded", ttl=0.0), new_run("executed", ttl=0.0)])
        found = await store.sweep(lapsed=["worker-1"], spared=["executed", "unknown"])
        assert dict(found.owners) == {"worker-1": True}
        assert names(await store.claim_due(request())) == ["stranded"]
