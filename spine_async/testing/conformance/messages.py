"""Contract of messages for runs."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from spine_async._model.due import Delivery, Message, NewMessage, Notice
from spine_async._model.run_change import Release, RunEnd
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.due_rows import (
    at_seconds,
    claimed,
    due_run,
    due_store,
    message,
    names,
    notice,
    open_names,
    park,
    parked,
    sent,
    state,
)
from spine_async.testing.conformance.rows import (
    change,
    committed,
    created,
    loaded,
    moment,
    moved,
    new_run,
    taken_over,
    visit,
)

AWAITING = Release(status=RunStatus.WAITING, awaits_messages=True)


class MessageContract:
    """Only for stores with the capability `DueRunStore`."""

    async def test_a_message_reaches_the_owner(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, message("approve", '{"by":"ü","n":12345678901234567890}'))
        found = await notice(store, claim)
        (arrived,) = found.messages
        value = '{"by":"ü","n":12345678901234567890}'
        assert arrived == Message(arrived.id, "approve", value, moment(7))
        assert (found.run_id, found.stop_reason) == ("run-1", None)

    async def test_messages_come_in_the_order_of_their_arrival(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, *(message(name) for name in ("b", "a", "c", "a")))
        assert await open_names(store, claim) == ["b", "a", "c", "a"]
        ids = [each.id for each in (await notice(store, claim)).messages]
        assert ids == sorted(set(ids))

    async def test_a_message_is_sent_again_after_a_lost_answer(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        made = message()
        assert [await store.send(made), await store.send(made)] == [Delivery.STORED] * 2
        assert await open_names(store, claim) == ["approve"]

    async def test_messages_without_a_key_are_all_stored(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, message(), message())
        assert await open_names(store, claim) == ["approve", "approve"]

    async def test_a_key_is_used_once_for_a_run(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await created(store, new_run("run-2"))
        await sent(store, message("a", key="k"), message("b", key="other"), message("a", run_id="run-2", key="k"))
        assert await store.send(message("c", key="k")) is Delivery.DUPLICATE
        assert await open_names(store, claim) == ["a", "b"]

    async def test_a_key_stays_known_after_the_message_was_taken(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, message(key="k"))
        (arrived,) = (await notice(store, claim)).messages
        await committed(store, replace(change(claim, [visit("fetch", 2)]), taken=(arrived.id,)))
        assert await store.send(message(key="k")) is Delivery.DUPLICATE

    async def test_a_keyed_message_is_sent_again_after_a_lost_answer(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store)
        made = message(key="k")
        assert [await store.send(made), await store.send(made)] == [Delivery.STORED] * 2

    @pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.STOPPED])
    async def test_a_message_for_a_run_that_can_be_resumed_is_kept(self, store: RunStore, status: RunStatus) -> None:
        store = due_store(store)
        await committed(store, change(await created(store), end=RunEnd(status, moment(60))))
        await sent(store, message())
        assert await claimed(store) == [], "a message resumes no run that has ended"
        claim = await taken_over(store)
        assert await open_names(store, claim) == ["approve"]

    async def test_a_completed_run_takes_no_messages(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        made = message(key="k")
        await sent(store, made)
        await committed(store, change(claim, end=RunEnd(RunStatus.COMPLETED, moment(60))))
        assert await store.send(message()) is Delivery.ENDED
        assert await store.send(made) is Delivery.STORED, "the answer of the first call may have been lost"
        assert await store.send(message(key="k")) is Delivery.DUPLICATE

    async def test_an_unknown_run_takes_no_messages(self, store: RunStore) -> None:
        store = due_store(store)
        assert await store.send(message()) is Delivery.NOT_FOUND

    async def test_the_messages_of_a_deleted_run_are_gone(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store)
        await sent(store, message(key="k"))
        await store.delete(["run-1"])
        assert await store.send(message(key="k")) is Delivery.NOT_FOUND
        claim = await created(store)
        assert (await notice(store, claim)).messages == ()
        await sent(store, message(key="k"))

    async def test_a_message_before_the_first_start_is_kept(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run())
        await sent(store, message())
        (found,) = await claimed(store)
        assert await open_names(store, found.claim) == ["approve"]

    async def test_a_message_starts_no_delayed_run(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run(due=at_seconds(3600)))
        await sent(store, message())
        assert await claimed(store) == []

    async def test_sending_changes_nothing_of_the_run(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        before = await loaded(store)
        await sent(store, message())
        assert await loaded(store) == before
        await committed(store, change(claim, [visit("fetch", 2)]))

    async def test_a_commit_takes_messages(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, message("a"), message("b"), message("c"))
        first, _, last = (await notice(store, claim)).messages
        made = replace(change(claim, [visit("fetch", 2)]), taken=(first.id, last.id))
        assert await store.commit([made]) == await store.commit([made]) == [CommitOutcome.COMMITTED]
        assert await open_names(store, claim) == ["b"]

    async def test_a_refused_commit_takes_nothing(self, store: RunStore) -> None:
        store = due_store(store)
        old = await created(store)
        await sent(store, message())
        (arrived,) = (await notice(store, old)).messages
        new = await taken_over(store)
        late = replace(change(old, [visit("fetch", 2)]), taken=(arrived.id,))
        assert await store.commit([late]) == [CommitOutcome.FENCED]
        assert await open_names(store, new) == ["approve"]

    async def test_a_run_takes_no_messages_of_another(self, store: RunStore) -> None:
        store = due_store(store)
        claim, other = await created(store), await created(store, new_run("run-2"))
        await sent(store, message(run_id="run-2"))
        (arrived,) = (await notice(store, other)).messages
        await committed(store, replace(change(claim), taken=(arrived.id,)))
        assert await open_names(store, other) == ["approve"]

    async def test_several_runs_take_their_messages_in_one_call(self, store: RunStore) -> None:
        store = due_store(store)
        claims = [await created(store, new_run(name)) for name in "abc"]
        await sent(store, *(message(run_id=name) for name in "abc"))
        taken = {each.run_id: each.messages[0].id for each in await store.notices(claims)}
        changes = [replace(change(each, [visit("fetch", 2)]), taken=(taken[each.run_id],)) for each in claims[:2]]
        await store.commit(changes)
        assert [await open_names(store, each) for each in claims] == [[], [], ["approve"]]

    async def test_a_message_wakes_a_parked_run(self, store: RunStore) -> None:
        store = due_store(store)
        await parked(store, AWAITING)
        assert await claimed(store) == []
        await sent(store, message())
        assert names(await claimed(store)) == ["run-1"]

    async def test_a_message_wakes_before_the_due_time(self, store: RunStore) -> None:
        store = due_store(store)
        await parked(store, replace(AWAITING, due=at_seconds(3600)))
        await sent(store, message())
        assert names(await claimed(store)) == ["run-1"]

    async def test_a_message_that_came_before_the_park_wakes_at_once(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, message())
        await park(store, claim, AWAITING)
        assert (await state(store)).is_due is True
        assert names(await claimed(store)) == ["run-1"]

    async def test_a_message_wakes_a_run_that_was_released_without_a_change(self, store: RunStore) -> None:
        store = due_store(store)
        for name, is_first in (("a", True), ("b", False)):
            claim = await created(store, new_run(name))
            if is_first:
                await sent(store, message(run_id=name))
            assert await store.release_run(claim, AWAITING)
            if not is_first:
                await sent(store, message(run_id=name))
        assert sorted(names(await claimed(store))) == ["a", "b"]

    async def test_a_message_that_the_park_takes_wakes_nobody(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, message())
        (arrived,) = (await notice(store, claim)).messages
        made = replace(change(claim, [visit("fetch", 2)]), taken=(arrived.id,), release=AWAITING)
        await committed(store, made)
        assert await claimed(store) == []

    async def test_a_message_that_was_taken_long_ago_wakes_nobody(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await sent(store, message())
        (arrived,) = (await notice(store, claim)).messages
        made = replace(change(claim, [visit("fetch", 2)]), taken=(arrived.id,))
        claim = moved(claim, await committed(store, made))
        await park(store, claim, AWAITING)
        assert await claimed(store) == []

    async def test_a_message_wakes_once(self, store: RunStore) -> None:
        """The owner that parks the run again without taking the message says whether it awaits messages."""
        store = due_store(store)
        await parked(store, AWAITING)
        await sent(store, message())
        (found,) = await claimed(store)
        await park(store, found.claim, Release(status=RunStatus.WAITING))
        assert await claimed(store) == []
        await sent(store, message())
        assert names(await claimed(store)) == ["run-1"]

    async def test_a_message_that_races_with_the_park_is_never_lost(self, store: RunStore) -> None:
        store = due_store(store)
        claims = [await created(store, new_run(f"run {number}")) for number in range(20)]
        async with anyio.create_task_group() as group:
            for claim in claims:
                group.start_soon(park, store, claim, AWAITING)
                group.start_soon(sent, store, message(run_id=claim.run_id))
                group.start_soon(store.sweep)
        found = await claimed(store, limit=50)
        assert sorted(names(found)) == sorted(claim.run_id for claim in claims)

    async def test_two_messages_with_one_key_that_race_are_one(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        answers: list[Delivery] = []

        async def send(made: NewMessage) -> None:
            answers.append(await store.send(made))

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(send, message(key="k"))
        assert sorted(answers) == [Delivery.DUPLICATE] * 4 + [Delivery.STORED]
        assert await open_names(store, claim) == ["approve"]

    async def test_notices_are_for_current_claims_only(self, store: RunStore) -> None:
        store = due_store(store)
        old, held = await created(store), await created(store, new_run("run-2"))
        current = await taken_over(store)
        await store.request_stop("run-1", "user")
        await sent(store, message(), message("b", run_id="run-2"))
        found = await store.notices([old, current, held])
        assert sorted((each.run_id, each.stop_reason, len(each.messages)) for each in found) == [
            ("run-1", "user", 1),
            ("run-2", None, 1),
        ]
        assert await store.notices([]) == []

    async def test_a_run_without_a_message_or_a_requested_stop_has_no_notice(self, store: RunStore) -> None:
        store = due_store(store)
        quiet, stopped = await created(store), await created(store, new_run("run-2"))
        await store.request_stop("run-2", "user")
        assert await store.notices([quiet, stopped]) == [Notice("run-2", "user")]
        await sent(store, message())
        assert sorted(each.run_id for each in await store.notices([quiet, stopped])) == ["run-1", "run-2"]
