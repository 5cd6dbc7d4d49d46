"""Contract of `commit` for changes that are refused."""

from __future__ import annotations

from dataclasses import replace

from spine_async._model.run_change import RunChange, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.rows import (
    change,
    committed,
    created,
    event,
    loaded,
    moment,
    moved,
    new_run,
    taken_over,
    visit,
)


class FenceContract:
    """Each change is checked independently, by epoch, expected number and status; a refused one changes nothing."""

    async def _is_refused(self, store: RunStore, refused: RunChange) -> None:
        before = await loaded(store, refused.run_id)
        visits = await store.visits(refused.run_id)
        events = await store.events(refused.run_id, 0, 100)
        assert await store.commit([refused]) == [CommitOutcome.FENCED]
        assert await loaded(store, refused.run_id) == before
        assert await store.visits(refused.run_id) == visits
        assert await store.events(refused.run_id, 0, 100) == events

    def _full(self, claim: Claim) -> RunChange:
        return change(claim, [visit("late", claim.next_seq)], [event("late", claim.next_seq + 1)])

    async def test_an_older_epoch_is_refused(self, store: RunStore) -> None:
        claim = await created(store)
        await taken_over(store)
        await self._is_refused(store, self._full(claim))

    async def test_an_epoch_that_was_never_given_is_refused(self, store: RunStore) -> None:
        claim = await created(store)
        await self._is_refused(store, self._full(replace(claim, epoch=2)))

    async def test_an_older_number_is_refused(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, [visit("fetch", 2)]))
        other = replace(change(claim, [visit("other", 2)]), commit_id="another change")
        await self._is_refused(store, other)

    async def test_a_number_ahead_of_the_run_is_refused(self, store: RunStore) -> None:
        claim = await created(store)
        await self._is_refused(store, self._full(replace(claim, next_seq=7)))

    async def test_an_unknown_run_is_refused(self, store: RunStore) -> None:
        claim = await created(store)
        stranger = replace(claim, run_id="nobody", key=claim.key + 1000)
        assert await store.commit([self._full(stranger)]) == [CommitOutcome.FENCED]
        assert await store.load("nobody") is None
        assert await store.visits("nobody") == []

    async def test_a_deleted_run_is_refused(self, store: RunStore) -> None:
        claim = await created(store)
        await store.delete(["run-1"])
        assert await store.commit([self._full(claim)]) == [CommitOutcome.FENCED]
        assert await store.load("run-1") is None

    async def test_a_run_created_anew_under_a_deleted_id_is_not_the_old_one(self, store: RunStore) -> None:
        old = await created(store)
        await created(store, new_run("other"))
        await store.delete(["run-1"])
        await created(store)
        await self._is_refused(store, self._full(old))

    async def test_a_run_that_has_ended_is_refused(self, store: RunStore) -> None:
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED):
            claim = await created(store, new_run(f"run {status}"))
            claim = moved(claim, await committed(store, change(claim, end=RunEnd(status, moment(60)))))
            await self._is_refused(store, self._full(claim))

    async def test_an_end_that_is_refused_does_not_end_the_run(self, store: RunStore) -> None:
        old = await created(store)
        await taken_over(store)
        end = RunEnd(RunStatus.FAILED, moment(60), "fetch", "late", "INTERNAL")
        await self._is_refused(store, change(old, events=[event("workflow_failed", 2)], end=end))

    async def test_a_refused_change_does_not_affect_the_others(self, store: RunStore) -> None:
        claims = [claim for claim in await store.create([new_run(run_id) for run_id in "abcd"]) if claim]
        await taken_over(store, "b")
        changes = [change(claim, [visit("fetch", 2)], [event("noted", 3)]) for claim in claims]
        outcomes = await store.commit(changes)
        assert [str(outcome) for outcome in outcomes] == ["committed", "fenced", "committed", "committed"]
        assert [len(await store.visits(run_id)) for run_id in "abcd"] == [1, 0, 1, 1]
        assert [len(await store.events(run_id, 0, 10)) for run_id in "abcd"] == [3, 1, 3, 3]
        assert [(await loaded(store, run_id)).next_seq for run_id in "abcd"] == [4, 2, 4, 4]

    async def test_a_call_in_which_all_are_refused_writes_nothing(self, store: RunStore) -> None:
        claims = [claim for claim in await store.create([new_run("a"), new_run("b")]) if claim]
        late = [self._full(replace(claim, epoch=9)) for claim in claims]
        assert await store.commit(late) == [CommitOutcome.FENCED] * 2
        assert [await store.visits(run_id) for run_id in "ab"] == [[], []]
