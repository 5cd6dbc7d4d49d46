"""Contract of `claim`."""

from __future__ import annotations

from spine_async._model.run_change import RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.rows import (
    change,
    committed,
    created,
    event,
    loaded,
    moment,
    new_run,
    taken_over,
    visit,
)

_RESUMED = EventRow("workflow_resumed", None, moment(90), '{"epoch":2}')
_FAILED = RunEnd(RunStatus.FAILED, moment(50), "fetch", "ValueError: no", "INTERNAL", None)
_STOPPED = RunEnd(RunStatus.STOPPED, moment(50), stop_reason="user")
_COMPLETED = RunEnd(RunStatus.COMPLETED, moment(50))


class ClaimContract:
    """A claim makes its owner the only one that can commit to the run."""

    async def test_a_claim_has_the_next_epoch_and_number(self, store: RunStore) -> None:
        first = await created(store)
        second = await taken_over(store, event=_RESUMED)
        assert (second.run_id, second.key, second.epoch, second.next_seq) == ("run-1", first.key, 2, 3)
        run = await loaded(store)
        assert (run.epoch, run.owner, run.next_seq, run.updated_at) == (2, "worker-2", 3, moment(90))

    async def test_the_event_of_a_claim_takes_the_next_number(self, store: RunStore) -> None:
        made = await committed(store, change(await created(store), [visit("fetch", 3, started_seq=2)]))
        await taken_over(store, event=_RESUMED)
        last = (await store.events("run-1", 0, 10))[-1]
        assert (last.seq, last.event_type, last.step_name) == (made.next_seq, "workflow_resumed", None)
        assert (last.timestamp, last.metadata) == (moment(90), '{"epoch":2}')

    async def test_a_claim_without_an_event_takes_no_number(self, store: RunStore) -> None:
        await created(store)
        claim = await taken_over(store)
        assert (claim.epoch, claim.next_seq) == (2, 2)
        assert len(await store.events("run-1", 0, 10)) == 1

    async def test_epochs_go_up_with_every_claim(self, store: RunStore) -> None:
        await created(store)
        claims = [await taken_over(store) for _ in range(3)]
        assert [claim.epoch for claim in claims] == [2, 3, 4]

    async def test_a_claim_clears_how_the_run_had_failed(self, store: RunStore) -> None:
        await committed(store, change(await created(store), events=[event("workflow_failed", 2)], end=_FAILED))
        await taken_over(store, event=_RESUMED)
        run = await loaded(store)
        assert run.status is RunStatus.RUNNING
        assert (run.error_step, run.error, run.error_category, run.stop_reason, run.completed_at) == (None,) * 5

    async def test_a_claim_clears_why_the_run_had_stopped(self, store: RunStore) -> None:
        await committed(store, change(await created(store), end=_STOPPED))
        await taken_over(store)
        run = await loaded(store)
        assert (run.status, run.stop_reason, run.completed_at) == (RunStatus.RUNNING, None, None)

    async def test_a_claim_keeps_the_start_of_the_run(self, store: RunStore) -> None:
        await created(store)
        await taken_over(store, event=_RESUMED)
        run = await loaded(store)
        assert run.created_at == run.started_at == moment(0)

    async def test_a_completed_run_cannot_be_claimed(self, store: RunStore) -> None:
        await committed(store, change(await created(store), end=_COMPLETED))
        before = await loaded(store)
        assert await store.claim("run-1", "worker-2", _RESUMED, ttl=60, over_epoch=1) is None
        assert await loaded(store) == before

    async def test_an_unknown_run_cannot_be_claimed(self, store: RunStore) -> None:
        assert await store.claim("nobody", "worker-2", _RESUMED, ttl=60) is None
        assert await store.load("nobody") is None
        assert await store.events("nobody", 0, 10) == []

    async def test_the_previous_owner_cannot_commit(self, store: RunStore) -> None:
        old = await created(store)
        new = await taken_over(store)
        assert await store.commit([change(old, [visit("late", 2)])]) == [CommitOutcome.FENCED]
        assert await store.commit([change(new, [visit("fetch", 2)])]) == [CommitOutcome.COMMITTED]
        assert [row.path for row in await store.visits("run-1")] == ["fetch"]

    async def test_a_run_continues_under_a_new_claim_with_its_visits(self, store: RunStore) -> None:
        await committed(store, change(await created(store), [visit("fetch", 2)], end=_STOPPED))
        claim = await taken_over(store)
        await committed(store, change(claim, [visit("save", 3)]))
        assert [(row.path, row.epoch) for row in await store.visits("run-1")] == [("fetch", 1), ("save", 2)]

    async def test_a_run_that_has_ended_can_be_refused(self, store: RunStore) -> None:
        for number, end in enumerate((_FAILED, _STOPPED)):
            run_id = f"run {number}"
            await committed(store, change(await created(store, new_run(run_id)), end=end))
            before = await loaded(store, run_id)
            assert await store.claim(run_id, "worker-2", None, ttl=60, unless_ended=True) is None
            assert await loaded(store, run_id) == before
            assert isinstance(await store.claim(run_id, "worker-2", None, ttl=60), Claim)

    async def test_unless_ended_does_not_refuse_a_running_run(self, store: RunStore) -> None:
        claim = await created(store)
        answer = await store.claim("run-1", "worker-2", None, ttl=60, over_epoch=claim.epoch, unless_ended=True)
        assert isinstance(answer, Claim)
