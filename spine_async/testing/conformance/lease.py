"""Contract of leases: who may claim a run, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio

from spine_async._model.run_change import RunEnd
from spine_async._model.run_claim import Busy, Claim
from spine_async._model.status import RunStatus, StepStatus
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

_SHORT = 0.02
_LONGEST_WAIT = 10.0


class LeaseContract:
    """Only the owner can claim a leased run; without a lease the first claim succeeds."""

    async def _claimed_once_free(self, store: RunStore, run_id: str = "run-1") -> Claim:
        """Claim the run repeatedly until its lease has expired."""
        with anyio.fail_after(_LONGEST_WAIT):
            while not isinstance(claim := await store.claim(run_id, "worker-2", None, ttl=60), Claim):
                assert claim is not None
                await anyio.sleep(_SHORT / 4)
        return claim

    async def test_a_leased_run_is_refused_and_its_owner_named(self, store: RunStore) -> None:
        await created(store)
        before = await loaded(store)
        busy = await store.claim("run-1", "worker-2", event("workflow_resumed", 0), ttl=60)
        assert isinstance(busy, Busy)
        assert (busy.owner, busy.epoch) == ("worker-1", 1)
        assert await loaded(store) == before
        assert len(await store.events("run-1", 0, 10)) == 1

    async def test_a_refusal_has_the_end_of_the_lease(self, store: RunStore) -> None:
        asked_at = datetime.now(UTC)
        await created(store, new_run(ttl=600))
        busy = await store.claim("run-1", "worker-2", None, ttl=60)
        assert isinstance(busy, Busy)
        assert busy.lease_until is not None
        assert busy.lease_until.utcoffset() == timedelta(0)
        assert abs(busy.lease_until - asked_at - timedelta(seconds=600)) < timedelta(seconds=60)

    async def test_a_refused_claim_does_not_affect_the_owner(self, store: RunStore) -> None:
        claim = await created(store)
        assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Busy)
        await committed(store, change(claim, [visit("fetch", 2)]))

    async def test_a_run_is_free_once_its_lease_has_ended(self, store: RunStore) -> None:
        old = await created(store, new_run(ttl=_SHORT))
        claim = await self._claimed_once_free(store)
        assert (claim.key, claim.epoch) == (old.key, 2)
        assert (await loaded(store)).owner == "worker-2"

    async def test_a_claim_is_a_lease_for_others(self, store: RunStore) -> None:
        await created(store, new_run(ttl=0.0))
        assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Claim)
        busy = await store.claim("run-1", "worker-3", None, ttl=60)
        assert isinstance(busy, Busy)
        assert (busy.owner, busy.epoch) == ("worker-2", 2)

    async def test_the_lease_of_a_claim_ends_too(self, store: RunStore) -> None:
        await created(store, new_run(ttl=0.0))
        assert isinstance(await store.claim("run-1", "worker-3", None, ttl=_SHORT), Claim)
        assert (await self._claimed_once_free(store)).epoch == 3

    async def test_the_owner_may_claim_its_own_run_again(self, store: RunStore) -> None:
        old = await created(store)
        claim = await store.claim("run-1", "worker-1", None, ttl=60)
        assert isinstance(claim, Claim)
        assert claim.epoch == 2
        assert await store.commit([change(old, [visit("late", 2)])]) == [CommitOutcome.FENCED]

    async def test_a_run_is_claimed_over_the_epoch_of_an_owner_that_is_gone(self, store: RunStore) -> None:
        await created(store)
        claim = await store.claim("run-1", "worker-2", None, ttl=60, over_epoch=1)
        assert isinstance(claim, Claim)
        assert claim.epoch == 2

    async def test_a_run_is_claimed_over_exactly_that_epoch(self, store: RunStore) -> None:
        await created(store)
        await taken_over(store)
        for epoch in (0, 1, 3):
            assert isinstance(await store.claim("run-1", "worker-3", None, ttl=60, over_epoch=epoch), Busy)
        assert (await loaded(store)).owner == "worker-2"

    async def test_of_concurrent_claims_of_a_free_run_one_succeeds(self, store: RunStore) -> None:
        await created(store, new_run(ttl=0.0))
        claims: list[Claim | Busy | None] = []

        async def ask(number: int) -> None:
            claims.append(await store.claim("run-1", f"asker-{number}", None, ttl=60))

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(ask, number)
        assert sorted(type(claim).__name__ for claim in claims) == ["Busy"] * 7 + ["Claim"]
        owner = (await loaded(store)).owner
        assert {claim.owner for claim in claims if isinstance(claim, Busy)} == {owner}

    async def test_a_run_is_leased_while_its_owner_holds_it(self, store: RunStore) -> None:
        await store.create([new_run("long"), new_run("short", ttl=0.0)])
        assert (await loaded(store, "long")).is_leased is True
        assert (await loaded(store, "short")).is_leased is False
        assert (await loaded(store, "short")).owner == "worker-1"

    async def test_an_ended_run_has_no_owner(self, store: RunStore) -> None:
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED):
            claim = await created(store, new_run(f"run {status}"))
            await committed(store, change(claim, end=RunEnd(status, moment(60))))
            run = await loaded(store, f"run {status}")
            assert (run.owner, run.is_leased) == (None, False)

    async def test_a_run_that_was_released_can_be_claimed_at_once(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, end=RunEnd(RunStatus.STOPPED, moment(60), stop_reason="shutdown")))
        assert isinstance(await store.claim("run-1", "worker-2", None, ttl=60), Claim)

    async def test_a_lease_that_has_ended_does_not_end_the_right_to_commit(self, store: RunStore) -> None:
        await committed(store, change(await created(store, new_run(ttl=0.0)), [visit("fetch", 2)]))

    async def test_claims_without_progress_are_counted(self, store: RunStore) -> None:
        await created(store)
        assert (await loaded(store)).claims_since_progress == 0
        for count in (1, 2, 3):
            await taken_over(store)
            assert (await loaded(store)).claims_since_progress == count

    async def test_a_finished_step_is_progress(self, store: RunStore) -> None:
        await created(store)
        claim = await taken_over(store)
        claim = moved(claim, await committed(store, change(claim, [visit("fetch", 2)])))
        assert (await loaded(store)).claims_since_progress == 0
        pause = visit("pause@until", 3, status=StepStatus.WAITING)
        await committed(store, change(claim, [pause], status=RunStatus.WAITING))
        await taken_over(store)
        assert (await loaded(store)).claims_since_progress == 0, "a run that waits does not harm its owner"
        await taken_over(store)
        assert (await loaded(store)).claims_since_progress == 1

    async def test_the_claim_of_an_ended_run_begins_to_count_anew(self, store: RunStore) -> None:
        await created(store)
        await taken_over(store)
        claim = await taken_over(store)
        await committed(store, change(claim, end=RunEnd(RunStatus.FAILED, moment(60), "fetch", "no", "INTERNAL")))
        await taken_over(store)
        assert (await loaded(store)).claims_since_progress == 1
