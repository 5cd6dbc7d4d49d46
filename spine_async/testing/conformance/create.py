"""Contract of `create` and `load`."""

from __future__ import annotations

from dataclasses import fields

from spine_async._model.run_row import NewRun
from spine_async._model.status import RunStatus
from spine_async.ports import RunStore
from spine_async.testing.conformance.rows import change, committed, created, loaded, moment, new_run, visit


class CreateContract:
    """A created run is stored completely, with its first event, and claimed for its owner."""

    async def test_create_gives_a_claim_of_epoch_1(self, store: RunStore) -> None:
        claim = await created(store)
        assert (claim.run_id, claim.epoch, claim.next_seq) == ("run-1", 1, 2)

    async def test_create_stores_all_fields_of_the_run(self, store: RunStore) -> None:
        new = new_run()
        await created(store, new)
        run = await loaded(store)
        shared = {each.name for each in fields(NewRun)} - {"records_events", "lease_ttl", "commit_id", "due"}
        assert {name: getattr(run, name) for name in shared} == {name: getattr(new, name) for name in shared}

    async def test_a_created_run_is_running_and_has_not_ended(self, store: RunStore) -> None:
        await created(store)
        run = await loaded(store)
        assert (run.status, run.epoch, run.next_seq) == (RunStatus.RUNNING, 1, 2)
        assert (run.error_step, run.error, run.error_category, run.stop_reason, run.completed_at) == (None,) * 5
        assert run.created_at == run.started_at == run.updated_at == moment(0)

    async def test_moments_come_back_aware(self, store: RunStore) -> None:
        await created(store)
        run = await loaded(store)
        assert run.created_at.utcoffset() is not None

    async def test_missing_values_of_a_run_stay_none(self, store: RunStore) -> None:
        new = NewRun(
            "bare", "", 1, "f", "{}", "h", None, "{}", "{}", None, total_steps=1, owner="me", created_at=moment(0)
        )
        await created(store, new)
        run = await loaded(store, "bare")
        assert (run.partition, run.start_from, run.workflow_name) == (None, None, "")

    async def test_the_first_step_of_a_run_is_stored(self, store: RunStore) -> None:
        new = NewRun(
            "late", "w", 1, "f", "{}", "h", "{}", "{}", "{}", "step-3", total_steps=5, owner="me", created_at=moment(0)
        )
        await created(store, new)
        assert (await loaded(store, "late")).start_from == "step-3"

    async def test_workflow_started_is_event_number_1(self, store: RunStore) -> None:
        await created(store)
        events = await store.events("run-1", 0, 10)
        assert [(each.seq, each.event_type, each.step_name) for each in events] == [(1, "workflow_started", None)]
        assert events[0].timestamp == moment(0)

    async def test_a_run_without_events_begins_at_1(self, store: RunStore) -> None:
        claim = await created(store, new_run(records_events=False))
        assert (claim.epoch, claim.next_seq) == (1, 1)
        assert await store.events("run-1", 0, 10) == []
        assert (await loaded(store)).next_seq == 1

    async def test_create_takes_many_runs_at_once(self, store: RunStore) -> None:
        claims = await store.create([new_run(f"run-{number}", at=number) for number in range(50)])
        assert [claim and claim.run_id for claim in claims] == [f"run-{number}" for number in range(50)]
        assert len({claim.key for claim in claims if claim is not None}) == 50
        assert (await loaded(store, "run-49")).created_at == moment(49)

    async def test_a_repeated_creation_returns_the_same_claim_and_stores_nothing(self, store: RunStore) -> None:
        alone, together = new_run("alone"), [new_run(f"run-{number}") for number in range(3)]
        for runs in ([alone], together):
            first = await store.create(runs)
            assert await store.create(runs) == first
            assert None not in first
        assert len(await store.events("alone", 0, 10)) == 1
        assert (await loaded(store, "alone")).next_seq == 2
        assert [claim is None for claim in await store.create([together[0], new_run("run-1"), new_run("new")])] == [
            False,
            True,
            False,
        ]

    async def test_a_repeated_creation_is_refused_once_the_run_was_claimed_or_changed(self, store: RunStore) -> None:
        gone_on, claimed = new_run("gone-on"), new_run("claimed")
        await committed(store, change(await created(store, gone_on), [visit("a", 2)]))
        await created(store, claimed)
        await store.claim("claimed", "worker-1", None, ttl=60.0)
        assert await store.create([gone_on]) == await store.create([claimed]) == [None]

    async def test_a_creation_given_twice_in_one_call_is_refused_the_second_time(self, store: RunStore) -> None:
        new = new_run()
        assert [claim is None for claim in await store.create([new, new])] == [False, True]

    async def test_create_of_nothing_gives_nothing(self, store: RunStore) -> None:
        assert await store.create([]) == []

    async def test_an_id_that_is_taken_gets_no_claim_and_changes_nothing(self, store: RunStore) -> None:
        await created(store, new_run(workflow="first"))
        assert await store.create([new_run(workflow="second", at=9)]) == [None]
        assert (await loaded(store)).workflow_name == "first"
        assert len(await store.events("run-1", 0, 10)) == 1

    async def test_an_id_that_is_taken_does_not_affect_the_others(self, store: RunStore) -> None:
        await created(store, new_run("b"))
        claims = await store.create([new_run("a"), new_run("b"), new_run("c")])
        assert [claim and claim.run_id for claim in claims] == ["a", None, "c"]
        assert await store.load("a") is not None
        assert await store.load("c") is not None

    async def test_of_two_equal_ids_in_one_call_one_gets_the_claim(self, store: RunStore) -> None:
        claims = await store.create([new_run("a"), new_run("a"), new_run("b")])
        assert [claim and claim.run_id for claim in claims] == ["a", None, "b"]
        assert len(await store.events("a", 0, 10)) == 1

    async def test_an_unknown_run_is_loaded_as_none(self, store: RunStore) -> None:
        assert await store.load("nobody") is None

    async def test_a_closed_store_opens_again_when_it_is_used(self, store: RunStore) -> None:
        await created(store)
        await store.close()
        assert (await loaded(store)).run_id == "run-1"
