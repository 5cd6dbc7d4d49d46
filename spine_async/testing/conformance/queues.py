"""Contract of the limits of queues, and of fairness between keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from spine_async._model.due import DueRun, DueRuns
from spine_async._model.queue import Queue, RateLimit
from spine_async._model.run_change import Release, RunEnd
from spine_async._model.run_claim import Busy, Claim, NoRoom
from spine_async._model.status import RunStatus
from spine_async.ports import RunStore
from spine_async.testing.conformance.due_rows import (
    DueStore,
    at_seconds,
    due_run,
    due_store,
    in_seconds,
    message,
    names,
    park,
    request,
    sent,
)
from spine_async.testing.conformance.rows import change, committed, moment

PLENTY = 10


async def queued(store: DueStore, *run_ids: str, key: str | None = None, priority: int = 0) -> None:
    """Store runs of the queue `mail`."""
    await store.create([due_run(each, queue="mail", queue_key=key, priority=priority) for each in run_ids])


async def claimed_within(
    store: DueStore, limits: Queue, *, owner: str = "worker-9", limit: int = PLENTY
) -> list[DueRun]:
    """What a worker claims after a sweep, if it gives its queue these limits."""
    await store.sweep()
    wanted = request(owner=owner, queues=frozenset({limits.name, "other"}), limit=limit)
    return await store.claim_due(replace(wanted, limits=(limits,)))


async def end(store: DueStore, found: DueRun) -> None:
    """Record the end of a claimed run."""
    await committed(store, change(found.claim, end=RunEnd(RunStatus.COMPLETED, moment(60))))


async def claimed_alone(store: DueStore, run_id: str, limits: Queue, owner: str = "worker-8") -> object:
    """The answer of the claim of one run within limits."""
    return await store.claim_queued(run_id, owner, None, limits=limits, ttl=60)


def keys(found: Sequence[DueRun]) -> list[str | None]:
    """The keys of claimed runs, in order."""
    return [each.run.queue_key for each in found]


class QueueContract:
    """Only for stores with the capability `DueRunStore`."""

    async def test_concurrency_limits_the_held_runs_of_all_workers(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=3)
        await queued(store, *"abcde")
        first = await claimed_within(store, mail, owner="worker-1", limit=2)
        second = await claimed_within(store, mail, owner="worker-2")
        assert (names(first), names(second)) == (["a", "b"], ["c"])
        assert await claimed_within(store, mail, owner="worker-1") == []

    async def test_the_end_of_a_run_makes_room(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=1)
        await queued(store, *"abc")
        (found,) = await claimed_within(store, mail)
        await end(store, found)
        assert names(await claimed_within(store, mail)) == ["b"]

    async def test_per_process_limits_the_runs_of_one_owner(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", per_process=2)
        await queued(store, *"abcde")
        assert names(await claimed_within(store, mail, owner="worker-1")) == ["a", "b"]
        assert await claimed_within(store, mail, owner="worker-1") == []
        assert names(await claimed_within(store, mail, owner="worker-2")) == ["c", "d"]

    async def test_per_key_limits_the_runs_of_one_key(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", per_key=1)
        await queued(store, "a1", "a2", "a3", key="a")
        await queued(store, "b1", "b2", key="b")
        await queued(store, "c1", "c2")
        found = await claimed_within(store, mail)
        assert sorted(names(found)) == ["a1", "b1", "c1", "c2"], "runs without a key have no such limit"
        assert await claimed_within(store, mail, owner="worker-1") == []
        await end(store, next(each for each in found if each.run.queue_key == "a"))
        assert names(await claimed_within(store, mail)) == ["a2"]

    async def test_the_many_runs_of_a_full_key_do_not_hide_others(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", per_key=1, concurrency=50)
        await queued(store, *(f"a{number:03}" for number in range(200)), key="a")
        for key in "bcd":  # later, and with a higher number
            await queued(store, *(f"{key}{number}" for number in range(3)), key=key, priority=1)
        await queued(store, "free", priority=2)
        assert names(await claimed_within(store, mail)) == ["a000", "b0", "c0", "d0", "free"]
        assert await claimed_within(store, mail) == []

    async def test_the_smallest_limit_counts(self, store: RunStore) -> None:
        store, mail = (
            due_store(store),
            Queue("mail", concurrency=4, per_process=3, per_key=2, rate=RateLimit(9, per=60)),
        )
        await queued(store, *(f"a{number}" for number in range(5)), key="a")
        await queued(store, *(f"b{number}" for number in range(5)), key="b")
        assert len(await claimed_within(store, mail, owner="worker-1")) == 3
        assert len(await claimed_within(store, mail, owner="worker-2")) == 1
        assert len(await claimed_within(store, mail, owner="worker-3")) == 0

    async def test_runs_of_other_queues_and_of_none_do_not_count(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=1)
        await store.create([due_run("x", queue="other"), due_run("y"), due_run("z", queue="other")])
        await queued(store, "a", "b")
        assert sorted(names(await claimed_within(store, mail))) == ["a", "x", "y", "z"]
        await store.create([due_run("w", queue="other")])
        assert names(await claimed_within(store, mail)) == ["w"]

    async def test_the_order_holds_over_queues_with_and_without_limits(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=2)
        for name, queue, seconds in (
            ("m1", "mail", -30),
            ("o1", "other", -20),
            ("m2", "mail", -10),
            ("o2", "other", -5),
        ):
            await store.create([due_run(name, queue=queue, due=at_seconds(seconds))])
        await store.create([due_run("urgent", queue="other", priority=-1)])
        assert names(await claimed_within(store, mail, limit=4)) == ["urgent", "m1", "o1", "m2"]

    async def test_two_limited_queues_count_for_themselves(self, store: RunStore) -> None:
        store = due_store(store)
        await queued(store, "a", "b")
        await store.create([due_run(each, queue="print") for each in "xyz"])
        limits = (Queue("mail", concurrency=1), Queue("print", concurrency=2))
        wanted = replace(request(queues=frozenset({"mail", "print"})), limits=limits)
        assert sorted(names(await store.claim_due(wanted))) == ["a", "x", "y"]

    async def test_many_workers_never_exceed_a_limit(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=4, per_key=2)
        for key in "abc":
            await queued(store, *(f"{key}{number}" for number in range(8)), key=key)
        held: list[DueRun] = []
        most: dict[str, int] = {"all": 0, "key": 0}
        done: list[str] = []

        async def work(owner: str) -> None:
            while len(done) < 24:
                for found in await claimed_within(store, mail, owner=owner, limit=2):
                    held.append(found)
                    by_key = [keys(held).count(key) for key in "abc"]
                    most.update(all=max(most["all"], len(held)), key=max(most["key"], *by_key))
                    await anyio.lowlevel.checkpoint()
                    held.remove(found)
                    await end(store, found)
                    done.append(found.run.run_id)
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(work, f"worker-{number}")
        assert len(set(done)) == 24
        assert (most["all"] <= 4, most["key"] <= 2) == (True, True)

    async def test_a_parked_run_holds_no_slot_and_comes_before_new_ones(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=1)
        await queued(store, *"abc")
        (first,) = await claimed_within(store, mail)
        await park(store, first.claim, Release(status=RunStatus.WAITING, due=in_seconds(3600), awaits_messages=True))
        (second,) = await claimed_within(store, mail)
        assert second.run.run_id == "b"
        await sent(store, message(run_id="a"))
        assert await claimed_within(store, mail) == []
        await end(store, second)
        assert names(await claimed_within(store, mail)) == ["a"], "it is due, and comes before the new one"

    async def test_the_slot_of_an_owner_that_is_gone_is_free_when_a_sweep_finds_it(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=1)
        await queued(store, *"ab")
        assert names(await claimed_within(store, mail, owner="worker-1")) == ["a"]
        assert await claimed_within(store, mail, owner="worker-2") == []
        await store.sweep(gone=["worker-1"])
        assert names(await claimed_within(store, mail, owner="worker-2")) == ["a"]
        assert await claimed_within(store, mail, owner="worker-2") == []

    async def test_a_repeated_claim_takes_no_further_room(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=3, rate=RateLimit(3, per=60))
        await queued(store, *"abcde")
        again = replace(request(queues=frozenset({"mail"}), limit=2), limits=(mail,))
        assert names(await store.claim_due(again)) == names(await store.claim_due(again)) == ["a", "b"]
        assert names(await claimed_within(store, mail)) == ["c"]

    async def test_the_rate_counts_first_claims(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", rate=RateLimit(3, per=3600))
        await queued(store, *"abcde")
        first = await claimed_within(store, mail, limit=2)
        second = await claimed_within(store, mail, owner="worker-1")
        assert names([*first, *second]) == ["a", "b", "c"]
        await end(store, first[0])
        await store.delete(["a"])
        found = await claimed_within(store, mail)
        assert found == [], "also those of runs that were deleted count"
        assert isinstance(found, DueRuns)
        assert found.room_in == pytest.approx(3600, abs=60)

    async def test_a_run_that_continues_does_not_count_towards_the_rate(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", rate=RateLimit(1, per=3600))
        await queued(store, "a", priority=5)
        (found,) = await claimed_within(store, mail)
        await queued(store, *(f"new{number}" for number in range(40)))
        assert await claimed_within(store, mail) == []
        await store.renew([found.claim], 0)
        assert names(await claimed_within(store, mail)) == ["a"], "it is behind new runs, which have to wait"

    async def test_the_window_of_the_rate_slides(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", rate=RateLimit(1, per=0.05))
        await queued(store, *"ab")
        assert names(await claimed_within(store, mail)) == ["a"]
        with anyio.fail_after(10):
            while not (found := await claimed_within(store, mail)):
                assert isinstance(found, DueRuns)
                assert found.room_in is not None
                assert 0 <= found.room_in <= 0.05
                await anyio.sleep(found.room_in)
        assert names(found) == ["b"]

    async def test_a_claim_of_one_run_respects_the_limits(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", concurrency=1)
        await queued(store, *"ab")
        first = await claimed_alone(store, "a", mail)
        assert isinstance(first, Claim)
        assert isinstance(await claimed_alone(store, "b", mail), NoRoom)
        assert isinstance(await claimed_alone(store, "a", mail, owner="worker-7"), Busy)
        again = await claimed_alone(store, "a", mail)
        assert isinstance(again, Claim), "its own slot is not in its way"
        await store.renew([again], 0)
        assert isinstance(await claimed_alone(store, "b", mail), Claim)
        assert await claimed_alone(store, "nobody", mail) is None

    async def test_a_claim_of_one_run_counts_towards_the_rate_once(self, store: RunStore) -> None:
        store, mail = due_store(store), Queue("mail", rate=RateLimit(1, per=3600))
        await queued(store, *"ab")
        first = await claimed_alone(store, "a", mail)
        assert isinstance(first, Claim)
        refused = await claimed_alone(store, "b", mail)
        assert isinstance(refused, NoRoom)
        assert refused.seconds == pytest.approx(3600, abs=60)
        await store.renew([first], 0)
        assert isinstance(await claimed_alone(store, "a", mail), Claim)

    async def test_the_keys_of_a_queue_take_turns(self, store: RunStore) -> None:
        store = due_store(store)
        await queued(store, *(f"a{number}" for number in range(6)), key="a")
        await queued(store, *(f"b{number}" for number in range(3)), key="b")
        await queued(store, "c0", key="c")
        found = await store.claim_due(request(queues=frozenset({"mail"})))
        assert keys(found) == ["a", "b", "c", "a", "b", "a", "b", "a", "a", "a"]

    async def test_the_first_run_of_a_key_is_not_behind_the_many_of_another(self, store: RunStore) -> None:
        store = due_store(store)
        await queued(store, *(f"a{number}" for number in range(100)), key="a")
        for _ in range(2):
            await store.claim_due(request(queues=frozenset({"mail"}), limit=20))
        await queued(store, "b0", "b1", "b2", key="b")
        found = await store.claim_due(request(queues=frozenset({"mail"}), limit=6))
        assert keys(found) == ["a", "b", "a", "b", "a", "b"]

    async def test_a_delayed_run_takes_its_turn_when_it_is_due(self, store: RunStore) -> None:
        store = due_store(store)
        runs = [due_run(f"a{number}", queue="mail", queue_key="a", due=in_seconds(0.02)) for number in range(10)]
        await store.create([*runs, due_run("b", queue="mail", queue_key="b", due=in_seconds(0.03))])
        with anyio.fail_after(10):
            while not (await store.states(["b"]))[0].is_due:  # noqa: ASYNC110 (time passes)
                await anyio.sleep(0.005)
        await store.sweep()
        assert keys(await store.claim_due(request(queues=frozenset({"mail"}), limit=2))) == ["a", "b"]

    async def test_fairness_is_within_a_priority(self, store: RunStore) -> None:
        store = due_store(store)
        await queued(store, "a0", "a1", key="a")
        await queued(store, "b0", "b1", key="b", priority=1)
        found = await store.claim_due(request(queues=frozenset({"mail"})))
        assert names(found) == ["a0", "a1", "b0", "b1"]

    async def test_a_queue_with_new_runs_is_not_unlisted(self, store: RunStore) -> None:
        store = due_store(store)
        await queued(store, "a")
        assert await store.unlisted_queues(["other"]) == []

    async def test_a_queue_that_nobody_lists_is_found(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("late", queue="mail", due=at_seconds(-90)), due_run("free", due=at_seconds(-90))])
        await store.create([due_run("known", queue="known", due=at_seconds(-90))])
        assert await store.unlisted_queues(["known"]) == ["mail"]
        assert await store.unlisted_queues([]) == ["mail"], "somebody has listed the other one"
        assert await store.unlisted_queues(["mail"]) == []
        assert await store.unlisted_queues(["default"]) == []
