"""Contract of runs that a step of another run has started: their parent learns of their end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spine_async._model.run_change import Release, RunEnd, ended_message
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.due_rows import (
    DueStore,
    claimed,
    due_run,
    due_store,
    names,
    open_names,
    park,
    parked,
)
from spine_async.testing.conformance.rows import change, created, loaded, moment, new_run

AWAITING = Release(status=RunStatus.WAITING, awaits_messages=True)
MESSAGE = ended_message("child")


class ChildContract:
    """Only for stores with the capability `DueRunStore`."""

    async def _child(self, store: DueStore) -> Claim:
        return await created(store, replace(new_run("child"), parent_run_id="run-1"))

    async def _end(self, store: DueStore, claim: Claim, status: RunStatus = RunStatus.COMPLETED) -> None:
        made = replace(change(claim), end=RunEnd(status, moment(9)), notified_run_id="run-1")
        for _ in range(2):  # the second time as after a lost answer
            assert await store.commit([made]) == [CommitOutcome.COMMITTED]

    async def test_a_run_keeps_the_id_of_its_parent(self, store: RunStore) -> None:
        store = due_store(store)
        await self._child(store)
        await store.create([replace(due_run("due"), parent_run_id="run-1"), due_run("other")])
        for run_id, parent in (("child", "run-1"), ("due", "run-1"), ("other", None)):
            assert (await loaded(store, run_id)).parent_run_id == parent
        found = await store.runs(RunFilter(parent_run_id="run-1"))
        assert sorted(each.run_id for each in found) == ["child", "due"]

    @pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED])
    async def test_the_end_of_a_child_is_a_message_for_its_parent(self, store: RunStore, status: RunStatus) -> None:
        store = due_store(store)
        parent = await created(store)
        await self._end(store, await self._child(store), status)
        assert await open_names(store, parent) == [MESSAGE]

    async def test_a_parked_parent_is_due_when_a_child_has_ended(self, store: RunStore) -> None:
        store = due_store(store)
        await parked(store, AWAITING)
        child = await self._child(store)
        assert names(await claimed(store)) == []
        await self._end(store, child)
        assert names(await claimed(store)) == ["run-1"]

    async def test_a_parent_that_is_parked_after_the_end_is_due_at_once(self, store: RunStore) -> None:
        store = due_store(store)
        parent = await created(store)
        await self._end(store, await self._child(store))
        await park(store, parent, AWAITING)
        assert names(await claimed(store)) == ["run-1"]

    async def test_several_children_end_in_one_group(self, store: RunStore) -> None:
        store = due_store(store)
        parent = await created(store)
        claims = [await created(store, replace(new_run(f"c{n}"), parent_run_id="run-1")) for n in range(3)]
        end = RunEnd(RunStatus.COMPLETED, moment(9))
        made = [replace(change(claim), end=end, notified_run_id="run-1") for claim in claims]
        assert await store.commit([*made, change(parent)]) == [CommitOutcome.COMMITTED] * 4
        parent.next_seq = (await loaded(store, "run-1")).next_seq
        assert sorted(await open_names(store, parent)) == [ended_message(f"c{n}") for n in range(3)]

    async def test_a_fenced_end_sends_nothing(self, store: RunStore) -> None:
        store = due_store(store)
        parent = await created(store)
        child = await self._child(store)
        late = replace(child, epoch=child.epoch + 1)
        made = replace(change(late), end=RunEnd(RunStatus.COMPLETED, moment(9)), notified_run_id="run-1")
        assert await store.commit([made]) == [CommitOutcome.FENCED]
        assert await open_names(store, parent) == []

    async def test_the_end_of_a_child_without_a_parent_is_committed(self, store: RunStore) -> None:
        store = due_store(store)
        await self._end(store, await self._child(store))
        assert (await loaded(store, "child")).status is RunStatus.COMPLETED
