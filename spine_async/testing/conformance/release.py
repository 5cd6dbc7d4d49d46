"""Contract of releases: with a change, without one, and by the end of a lease of zero seconds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from spine_async._model.run_change import Release, RunEnd
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.due_rows import (
    at_seconds,
    claimed,
    due_store,
    in_seconds,
    names,
    now,
    park,
    parked,
    state,
)
from spine_async.testing.conformance.rows import change, committed, created, loaded, moment, new_run, taken_over, visit

WAITING = Release(status=RunStatus.WAITING)


class ReleaseContract:
    """Only for stores with the capability `DueRunStore`."""

    async def test_a_run_is_released_with_a_change(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        made = replace(change(claim, [visit("fetch", 2)]), release=Release(due=in_seconds(600)))
        await committed(store, made)
        run = await loaded(store)
        assert (run.status, run.owner, run.is_leased, run.next_seq) == (RunStatus.PENDING, None, False, 3)
        assert run.due_at is not None
        assert [each.path for each in await store.visits("run-1")] == ["fetch"]
        assert run.completed_at is None

    async def test_a_change_that_releases_may_be_repeated(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        made = replace(change(claim, [visit("fetch", 2)]), release=WAITING)
        assert await store.commit([made]) == await store.commit([made]) == [CommitOutcome.COMMITTED]
        assert len(await store.visits("run-1")) == 1

    async def test_a_superseded_owner_releases_nothing(self, store: RunStore) -> None:
        store = due_store(store)
        old = await created(store)
        await taken_over(store)
        made = replace(change(old, [visit("fetch", 2)]), release=WAITING)
        assert await store.commit([made]) == [CommitOutcome.FENCED]
        assert await store.release_run(old, WAITING) is False
        assert (await loaded(store)).owner == "worker-2"

    async def test_one_call_commits_advances_ends_and_releases(self, store: RunStore) -> None:
        store = due_store(store)
        claims = [await created(store, new_run(name)) for name in "abcd"]
        changes = [
            change(claims[0], [visit("fetch", 2)]),
            change(claims[1], end=RunEnd(RunStatus.COMPLETED, moment(60))),
            replace(change(claims[2], [visit("fetch", 2)]), release=WAITING),
            replace(change(replace(claims[3], epoch=7)), release=WAITING),
        ]
        outcomes = await store.commit(changes)
        assert [str(each) for each in outcomes] == ["committed", "committed", "committed", "fenced"]
        states = [(await state(store, each)).status.value for each in "abcd"]
        assert states == ["running", "completed", "waiting", "running"]

    async def test_the_epoch_that_parked_a_run_can_do_nothing(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await parked(store)
        assert await store.commit([change(claim, [visit("late", 2)])]) == [CommitOutcome.FENCED]
        assert await store.commit([change(claim, end=RunEnd(RunStatus.STOPPED, moment(60)))]) == [CommitOutcome.FENCED]
        assert [each.is_held for each in await store.renew([claim], 60)] == [False]
        assert await store.release_run(claim, Release()) is False
        assert await store.notices([claim]) == []
        assert (await loaded(store)).status is RunStatus.WAITING

    async def test_a_run_that_is_due_now_is_ready_at_once(self, store: RunStore) -> None:
        store = due_store(store)
        for name, due in (("a", at_seconds(-1)), ("b", in_seconds(0))):
            await parked(store, Release(status=RunStatus.WAITING, due=due), name)
            assert (await state(store, name)).is_due is True
        assert sorted(names(await claimed(store))) == ["a", "b"]

    async def test_a_run_that_is_due_later_is_not_ready(self, store: RunStore) -> None:
        store = due_store(store)
        due = at_seconds(3600)
        await parked(store, Release(status=RunStatus.WAITING, due=due))
        assert await claimed(store) == []
        assert (await loaded(store)).due_at == due.at
        assert (await state(store)).is_due is False

    async def test_a_parked_run_is_due_by_its_seconds(self, store: RunStore) -> None:
        store = due_store(store)
        due = replace(in_seconds(600), at=now() - timedelta(hours=1))
        await parked(store, Release(status=RunStatus.WAITING, due=due))
        assert await claimed(store) == []

    async def test_a_run_without_a_due_time_waits_for_a_message_or_a_claim(self, store: RunStore) -> None:
        store = due_store(store)
        await parked(store)
        found = await store.sweep()
        assert (dict(found.owners), found.next_due) == ({}, None)
        assert await claimed(store) == []
        assert (await loaded(store)).due_at is None
        assert (await taken_over(store)).epoch == 2

    async def test_waking_counts_as_no_take_over(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        for _ in range(3):
            await park(store, claim, Release(status=RunStatus.WAITING, due=in_seconds(0)))
            (found,) = await claimed(store)
            claim = found.claim
        run = await loaded(store)
        assert (run.claims_since_progress, run.epoch) == (0, 4)
        assert len(await store.events("run-1", 0, 10)) == 1

    async def test_a_release_that_counts_is_a_take_over(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await parked(store, Release(due=in_seconds(0), counts=True))
        assert (await loaded(store)).claims_since_progress == 1
        (found,) = await claimed(store)
        assert (await loaded(store)).claims_since_progress == 1
        assert await store.release_run(found.claim, Release(counts=True)) is True
        assert (await loaded(store)).claims_since_progress == 2
        assert claim.epoch < found.claim.epoch

    async def test_a_released_change_with_progress_begins_to_count_anew(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store)
        await taken_over(store)
        claim = await taken_over(store)
        made = replace(change(claim, [visit("fetch", 2)]), release=Release(counts=True))
        await committed(store, made)
        assert (await loaded(store)).claims_since_progress == 1

    async def test_a_run_is_released_without_a_change(self, store: RunStore) -> None:
        """Whatever was committed meanwhile: only the epoch counts."""
        store = due_store(store)
        claim = await created(store)
        await committed(store, change(claim, [visit("fetch", 2)]))
        assert await store.release_run(claim, Release(due=in_seconds(0))) is True
        run = await loaded(store)
        assert (run.status, run.owner, run.next_seq) == (RunStatus.PENDING, None, 3)
        assert await store.release_run(claim, Release(due=in_seconds(0))) is False
        assert names(await claimed(store)) == ["run-1"]

    async def test_an_unknown_run_is_not_released(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await store.delete(["run-1"])
        assert await store.release_run(claim, Release()) is False

    async def test_a_lease_of_zero_seconds_makes_the_run_due(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await store.renew([claim], 0)
        found = await state(store)
        assert (found.status, found.owner, found.is_due) == (RunStatus.RUNNING, None, True)
        assert (await loaded(store)).due_at is not None
        assert names(await claimed(store)) == ["run-1"]
        assert (await loaded(store)).claims_since_progress == 0

    async def test_the_final_state_of_a_run_is_restored(self, store: RunStore) -> None:
        store = due_store(store)
        end = RunEnd(RunStatus.FAILED, moment(60), "fetch", "boom", "INTERNAL", None)
        await committed(store, change(await created(store), end=end))
        before = await loaded(store)
        claim = await taken_over(store)
        assert await store.release_run(claim, Release(status=RunStatus.FAILED, restored=end)) is True
        run = await loaded(store)
        assert (run.status, run.owner, run.completed_at, run.due_at) == (RunStatus.FAILED, None, moment(60), None)
        assert (run.error_step, run.error, run.error_category) == ("fetch", "boom", "INTERNAL")
        assert run.next_seq == before.next_seq
        assert await claimed(store) == []
        assert (await state(store)).is_due is False

    async def test_a_stop_is_kept_by_a_release(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await store.request_stop("run-1", "user")
        await park(store, claim, Release(due=in_seconds(0)))
        (found,) = await claimed(store)
        assert found.run.stop_requested == "user"

    async def test_a_run_that_was_asked_to_stop_is_ready_when_it_is_parked(self, store: RunStore) -> None:
        """Its owner may not have seen the request, and nothing else would wake it."""
        store = due_store(store)
        claim = await created(store)
        await store.request_stop("run-1", "user")
        await park(store, claim, Release(status=RunStatus.WAITING))
        (found,) = await claimed(store)
        assert found.run.stop_requested == "user"
        await store.request_stop("run-1", "again")
        assert await store.release_run(found.claim, Release(status=RunStatus.WAITING, due=in_seconds(3600)))
        (found,) = await claimed(store)
        assert found.run.stop_requested == "again"

    async def test_an_owner_that_has_carried_out_a_stop_parks_the_run(self, store: RunStore) -> None:
        """The request is kept, and does not wake the run again and again."""
        store = due_store(store)
        claim = await created(store)
        await store.request_stop("run-1", "user")
        await park(store, claim, Release(status=RunStatus.WAITING, awaits_messages=True, ignores_stop=True))
        assert await claimed(store) == []
        claim = await taken_over(store)
        await store.request_stop("run-1", "again")
        later = Release(status=RunStatus.WAITING, due=in_seconds(3600), ignores_stop=True)
        assert await store.release_run(claim, later)
        assert await claimed(store) == []
        assert (await loaded(store)).stop_requested == "again"

    async def test_a_parked_run_is_asked_to_stop(self, store: RunStore) -> None:
        store = due_store(store)
        await parked(store)
        assert await store.request_stop("run-1", "user") is True
        assert (await loaded(store)).stop_requested == "user"
