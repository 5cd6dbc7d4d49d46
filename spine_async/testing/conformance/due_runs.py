"""Contract of due runs: creation, claims by workers, and states."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import anyio

from spine_async._model.due import DueRun
from spine_async._model.run_change import RunDefinition, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.ports import CommitOutcome, DeleteIf, RunStore
from spine_async.testing.conformance.due_rows import (
    at_seconds,
    claimed,
    due_run,
    due_store,
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
    taken_over,
    visit,
)


class DueRunContract:
    """Only for stores with the capability `DueRunStore`."""

    async def test_a_due_run_is_stored_without_an_owner_and_without_an_event(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store, due_run())
        assert (claim.epoch, claim.next_seq) == (0, 1)
        run = await loaded(store)
        assert (run.status, run.epoch, run.owner, run.next_seq) == (RunStatus.PENDING, 0, None, 1)
        assert run.due_at is not None
        assert run.is_leased is False
        assert await store.events("run-1", 0, 10) == []

    async def test_the_first_change_stores_the_definition(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        await created(store, due_run("other"))
        found = await claimed(store, limit=2)
        definition = RunDefinition(3, "print", 7)
        changes = [change(each.claim, [visit("fetch", 1)]) for each in found]
        changes[0] = replace(changes[0], definition=definition)
        assert await store.commit(changes) == [CommitOutcome.COMMITTED] * 2
        first, other = [await loaded(store, each.run.run_id) for each in found]
        assert (first.workflow_version, first.fingerprint, first.total_steps) == (3, "print", 7)
        assert (other.fingerprint, other.total_steps) == (found[1].run.fingerprint, found[1].run.total_steps)
        fenced = replace(changes[0], expected_seq=9, definition=RunDefinition(4, "other", 8), commit_id="late")
        assert await store.commit([fenced]) == [CommitOutcome.FENCED]
        assert (await loaded(store, first.run_id)).total_steps == 7

    async def test_all_fields_of_a_due_run_are_stored(self, store: RunStore) -> None:
        store = due_store(store)
        due, expires = at_seconds(3600), now() + timedelta(hours=2)
        new = due_run(due=due, queue="mail", queue_key="k", priority=-5, expires_at=expires, request_hash="r")
        await created(store, new)
        run = await loaded(store)
        assert (run.queue, run.queue_key, run.priority, run.request_hash) == ("mail", "k", -5, "r")
        assert (run.due_at, run.expires_at, run.started_by) == (due.at, expires, "enqueue")
        assert (run.parent_run_id, run.stop_requested) == (None, None)

    async def test_a_held_run_is_not_due(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store)
        assert (await loaded(store)).due_at is None
        assert await claimed(store) == []
        assert (await state(store)).is_due is False

    async def test_the_creation_of_a_due_run_is_repeated(self, store: RunStore) -> None:
        store = due_store(store)
        new = due_run()
        first = await created(store, new)
        assert await created(store, new) == first
        assert await store.create([replace(new, commit_id="another")]) == [None]
        await claimed(store)
        assert await store.create([new]) == [None], "the run has changed since its creation"

    async def test_held_and_due_runs_are_created_together(self, store: RunStore) -> None:
        store = due_store(store)
        claims = await store.create([new_run("a"), due_run("b"), new_run("c"), due_run("b")])
        assert [each.epoch if each else None for each in claims] == [1, 0, 1, None]
        assert [len(await store.events(each, 0, 9)) for each in "abc"] == [1, 0, 1]

    async def test_a_claim_gives_the_run_as_it_was_before(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        before = await loaded(store)
        (found,) = await claimed(store)
        assert found.run == before
        assert (found.claim.run_id, found.claim.epoch, found.claim.next_seq) == ("run-1", 1, 1)

    async def test_a_claim_holds_the_run(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        (found,) = await claimed(store)
        run = await loaded(store)
        assert (run.status, run.epoch, run.owner, run.is_leased) == (RunStatus.RUNNING, 1, "worker-9", True)
        assert (run.due_at, run.claims_since_progress, run.next_seq) == (None, 0, 1)
        assert run.started_at == run.updated_at == moment(1000)
        await committed(store, change(found.claim, [visit("fetch", 1)]))

    async def test_only_the_first_claim_sets_the_start(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store)
        await store.renew([await taken_over(store)], 0)
        await claimed(store)
        run = await loaded(store)
        assert run.started_at == moment(0)
        assert run.updated_at == moment(1000)

    async def test_a_claimed_run_is_not_claimed_again(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        assert names(await claimed(store)) == ["run-1"]
        assert await claimed(store, owner="worker-8") == []

    async def test_an_explicit_claim_takes_a_due_run(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run(due=at_seconds(3600)))
        claim = await store.claim("run-1", "worker-2", None, ttl=60)
        assert isinstance(claim, Claim)
        assert claim.epoch == 1
        assert (await loaded(store)).due_at is None
        assert await claimed(store) == []

    async def test_the_answer_of_a_claim_may_be_lost(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("a"), due_run("b"), due_run("c")])
        again = request(limit=2)
        first = await store.claim_due(again)
        second = await store.claim_due(again)
        assert len(first) == 2
        assert [each.claim for each in first if each.claim not in [other.claim for other in second]] == []
        assert len(second) == 2, "the limit counts for all attempts together"

    async def test_the_limit_holds(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run(each) for each in "abcde"])
        assert len(await claimed(store, limit=2)) == 2
        assert len(await claimed(store, limit=9)) == 3

    async def test_runs_that_became_due_first_come_first(self, store: RunStore) -> None:
        store = due_store(store)
        for name, seconds in (("late", -1), ("early", -30), ("middle", -10)):
            await created(store, due_run(name, due=at_seconds(seconds)))
        assert names(await claimed(store)) == ["early", "middle", "late"]

    async def test_a_lower_priority_number_comes_first(self, store: RunStore) -> None:
        store = due_store(store)
        for name, priority in (("low", 5), ("normal", 0), ("urgent", -5)):
            await created(store, due_run(name, priority=priority, due=at_seconds(-priority - 20)))
        assert names(await claimed(store, limit=2)) == ["urgent", "normal"]

    async def test_a_run_that_was_started_before_comes_before_new_ones(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run("new", due=at_seconds(-3600)))
        await created(store, due_run("urgent", priority=-1))
        started = await created(store, new_run("started"))
        await store.renew([started], 0)
        assert names(await claimed(store)) == ["urgent", "started", "new"]

    async def test_only_known_workflows_are_claimed(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("a"), due_run("b", workflow_name="refunds"), due_run("c", workflow_name="other")])
        assert sorted(names(await claimed(store, workflows={"orders": 3, "refunds": 9}))) == ["a", "b"]
        assert await claimed(store, workflows={}) == []

    async def test_a_run_of_a_higher_version_is_left_to_others(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("old", workflow_version=1), due_run("new", workflow_version=4)])
        assert names(await claimed(store)) == ["old"]
        assert names(await claimed(store, workflows={"orders": 4})) == ["new"]

    async def test_a_run_without_a_version_gets_that_of_its_first_worker(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("named", workflow_version=0), due_run("versioned", workflow_version=2)])
        assert sorted(names(await claimed(store, workflows={"orders": 4}))) == ["named", "versioned"]
        assert (await loaded(store, "named")).workflow_version == 4
        assert (await loaded(store, "versioned")).workflow_version == 2

    async def test_only_its_queues_are_claimed_and_runs_without_one(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("free"), due_run("mail", queue="mail"), due_run("print", queue="print")])
        assert sorted(names(await claimed(store, queues=frozenset({"mail"})))) == ["free", "mail"]
        assert names(await claimed(store, queues=frozenset({"print", "mail"}))) == ["print"]

    async def test_the_order_holds_over_workflows_and_queues(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run("third", queue="mail", due=at_seconds(-10)))
        await created(store, due_run("second", workflow_name="refunds", due=at_seconds(-20)))
        await created(store, due_run("first", due=at_seconds(-30)))
        found = await claimed(store, workflows={"orders": 3, "refunds": 3}, queues=frozenset({"mail"}))
        assert names(found) == ["first", "second", "third"]

    async def test_two_workers_never_claim_the_same_run(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run(f"run {number}") for number in range(30)])
        found: list[DueRun] = []

        async def work(owner: str) -> None:
            while batch := await store.claim_due(request(owner=owner, limit=4)):
                found.extend(batch)

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(work, f"worker-{number}")
        assert sorted(names(found)) == sorted(f"run {number}" for number in range(30))

    async def test_an_explicit_claim_starts_a_due_run(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run()])
        await store.claim("run-1", "worker-1", EventRow("workflow_started", None, moment(90)), ttl=60)
        assert (await loaded(store)).started_at == moment(90)
        await store.claim("run-1", "worker-1", EventRow("workflow_resumed", None, moment(95)), ttl=60)
        assert (await loaded(store)).started_at == moment(90)

    async def test_an_owner_that_renews_its_lease_keeps_its_run(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store, new_run(ttl=0.0))
        await store.sweep(lapsed=["worker-1"])
        (renewal,) = await store.renew([claim], 60)
        assert renewal.is_held
        assert await store.claim_due(request()) == []
        await committed(store, change(claim, [visit("fetch", 2)]))

    async def test_an_owner_whose_run_was_claimed_has_lost_it(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store, new_run(ttl=0.0))
        await store.sweep(lapsed=["worker-1"])
        assert names(await store.claim_due(request())) == ["run-1"]
        assert [each.is_held for each in await store.renew([claim], 60)] == [False]
        assert await store.commit([change(claim, [visit("fetch", 2)])]) == [CommitOutcome.FENCED]

    async def test_a_run_that_ends_while_it_is_ready_is_not_claimed(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store, new_run(ttl=0.0))
        await store.sweep(lapsed=["worker-1"])
        await committed(store, change(claim, end=RunEnd(RunStatus.COMPLETED, moment(60))))
        assert await claimed(store) == []

    async def test_a_stop_is_kept_for_the_next_owner(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        assert await store.request_stop("run-1", "user") is True
        (found,) = await claimed(store)
        assert found.run.stop_requested == "user"
        assert [each.stop_reason for each in await store.renew([found.claim], 60)] == ["user"]

    async def test_a_pending_run_is_under_way(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        for chosen in (RunFilter(is_under_way=True), RunFilter(status=RunStatus.PENDING), RunFilter(is_leased=False)):
            assert [run.run_id for run in await store.runs(chosen)] == ["run-1"]
        assert await store.runs(RunFilter(status=RunStatus.RUNNING)) == []

    async def test_a_due_run_is_deleted(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        assert await store.delete(["run-1"], DeleteIf.ENDED) == [], "it has not ended"
        assert await store.delete(["run-1"]) == ["run-1"]
        assert await claimed(store) == []
        assert await store.states(["run-1"]) == []

    async def test_the_epoch_of_a_due_run_can_do_nothing(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store, due_run())
        assert await store.commit([change(claim, [visit("fetch", 1)])]) == [CommitOutcome.FENCED]
        assert [each.is_held for each in await store.renew([claim], 60)] == [False]

    async def test_states_are_those_of_the_stored_runs(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("due"), new_run("held"), new_run("lapsed", ttl=0.0)])
        ended = await created(store, new_run("ended"))
        await committed(store, change(ended, end=RunEnd(RunStatus.STOPPED, moment(60), stop_reason="user")))
        wanted = ["held", "due", "nobody", "ended", "held", "lapsed"]
        found = {each.run_id: each for each in await store.states(wanted)}
        assert {name: (each.status.value, each.epoch, each.owner) for name, each in found.items()} == {
            "due": ("pending", 0, None),
            "held": ("running", 1, "worker-1"),
            "lapsed": ("running", 1, "worker-1"),
            "ended": ("stopped", 1, None),
        }
        assert {name for name, each in found.items() if each.is_leased} == {"held"}
        assert {name for name, each in found.items() if each.is_due} == {"due"}

    async def test_a_state_has_the_number_of_the_next_event(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("due")])
        claim = await created(store, new_run("held"))
        assert {each.run_id: each.next_seq for each in await store.states(["due", "held"])} == {"due": 1, "held": 2}
        await committed(store, change(claim, [visit("fetch", 3, started_seq=2)]))
        (found,) = await store.states(["held"])
        assert found.next_seq == 4
        assert [each.seq for each in await store.events("held", 1, 100)] == [2, 3]  # a follower reads them at once
