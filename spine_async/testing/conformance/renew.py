"""Contract of `renew` and `request_stop`."""

from __future__ import annotations

from dataclasses import replace

from spine_async._model.run_change import RunEnd
from spine_async._model.run_claim import Busy, Claim, Renewal
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.rows import change, committed, created, loaded, moment, new_run, taken_over, visit

_HELD = Renewal(is_held=True)
_LOST = Renewal(is_held=False)


class RenewContract:
    """Only the current epoch extends a lease; a renewal returns a requested stop."""

    async def test_a_renewed_lease_holds_longer(self, store: RunStore) -> None:
        claim = await created(store, new_run(ttl=0.0))
        assert await store.renew([claim], 60) == [_HELD]
        assert (await loaded(store)).is_leased is True
        assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Busy)

    async def test_a_lease_counts_from_its_last_renewal(self, store: RunStore) -> None:
        claim = await created(store, new_run(ttl=600))
        assert await store.renew([claim], 0.0) == [_HELD]
        assert (await loaded(store)).is_leased is False
        assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Claim)

    async def test_a_superseded_epoch_renews_nothing(self, store: RunStore) -> None:
        old = await created(store)
        new = await taken_over(store)
        assert await store.renew([old], 0.0) == [_LOST]
        assert (await loaded(store)).is_leased is True
        assert await store.renew([new], 60) == [_HELD]

    async def test_an_epoch_that_was_never_given_renews_nothing(self, store: RunStore) -> None:
        claim = await created(store)
        assert await store.renew([replace(claim, epoch=2)], 60) == [_LOST]

    async def test_an_ended_run_is_not_renewed(self, store: RunStore) -> None:
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED):
            claim = await created(store, new_run(f"run {status}"))
            await committed(store, change(claim, end=RunEnd(status, moment(60))))
            assert await store.renew([claim], 60) == [_LOST]
            assert (await loaded(store, f"run {status}")).is_leased is False

    async def test_a_waiting_run_is_renewed(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, status=RunStatus.WAITING))
        assert await store.renew([claim], 60) == [_HELD]
        assert (await loaded(store)).status is RunStatus.WAITING

    async def test_a_deleted_run_is_not_renewed(self, store: RunStore) -> None:
        claim = await created(store)
        await store.delete(["run-1"])
        assert await store.renew([claim], 60) == [_LOST]

    async def test_many_are_renewed_at_once_each_for_itself(self, store: RunStore) -> None:
        claims = [claim for claim in await store.create([new_run(run_id) for run_id in "dbca"]) if claim]
        await taken_over(store, "b")
        await store.request_stop("c", "user")
        assert await store.renew(claims, 60) == [_HELD, _LOST, Renewal(is_held=True, stop_reason="user"), _HELD]

    async def test_renewal_of_nothing_gives_nothing(self, store: RunStore) -> None:
        assert await store.renew([], 60) == []

    async def test_a_renewal_changes_nothing_but_the_lease(self, store: RunStore) -> None:
        claim = await created(store)
        before = await loaded(store)
        await store.renew([claim], 60)
        assert await loaded(store) == before
        await committed(store, change(claim, [visit("fetch", 2)]))

    async def test_a_stop_that_was_asked_for_is_found_by_every_renewal(self, store: RunStore) -> None:
        claim = await created(store)
        assert await store.request_stop("run-1", "user: it's 100% enough ü") is True
        renewal = Renewal(is_held=True, stop_reason="user: it's 100% enough ü")
        assert await store.renew([claim], 60) == [renewal]
        assert await store.renew([claim], 60) == [renewal]

    async def test_a_commit_does_not_forget_a_stop(self, store: RunStore) -> None:
        claim = await created(store)
        await store.request_stop("run-1", "user")
        await committed(store, change(claim, [visit("fetch", 2)]))
        assert await store.renew([claim], 60) == [Renewal(is_held=True, stop_reason="user")]

    async def test_a_claim_forgets_a_stop(self, store: RunStore) -> None:
        await created(store)
        await store.request_stop("run-1", "user")
        claim = await taken_over(store)
        assert await store.renew([claim], 60) == [_HELD]

    async def test_a_superseded_owner_does_not_receive_a_stop(self, store: RunStore) -> None:
        old = await created(store)
        await taken_over(store)
        await store.request_stop("run-1", "user")
        assert await store.renew([old], 60) == [_LOST]

    async def test_only_a_run_under_way_is_asked_to_stop(self, store: RunStore) -> None:
        assert await store.request_stop("nobody", "user") is False
        await committed(store, change(await created(store), end=RunEnd(RunStatus.FAILED, moment(60))))
        assert await store.request_stop("run-1", "user") is False
        assert await store.renew([await taken_over(store)], 60) == [_HELD]

    async def test_a_superseded_owner_can_do_nothing(self, store: RunStore) -> None:
        old = await created(store)
        await taken_over(store)
        before = await loaded(store)
        end = RunEnd(RunStatus.STOPPED, moment(60), stop_reason="shutdown")
        for late in (change(old, [visit("late", 2)]), change(old, end=end)):
            assert await store.commit([late]) == [CommitOutcome.FENCED]
        assert await store.renew([old], 600) == [_LOST]
        assert await loaded(store) == before

    async def test_a_claim_of_a_deleted_run_renews_nothing_of_one_with_its_id(self, store: RunStore) -> None:
        old = await created(store)
        await store.delete(["run-1"])
        new = await created(store)
        assert await store.renew([old], 60) == [_LOST]
        assert await store.renew([new], 60) == [_HELD]
