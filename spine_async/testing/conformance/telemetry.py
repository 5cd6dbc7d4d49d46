"""Contract of what telemetry reads and stores: trace contexts, and the numbers of due and parked runs."""

from __future__ import annotations

from dataclasses import replace

from spine_async._model.due import Backlog
from spine_async._model.run_change import Release, RunEnd
from spine_async._model.status import RunStatus
from spine_async.ports import CommitOutcome, RunStore
from spine_async.testing.conformance.due_rows import claimed, due_run, due_store, in_seconds, park, parked
from spine_async.testing.conformance.rows import change, committed, created, loaded, moment, new_run, visit

FIRST = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECOND = "00-1bf7651916cd43dd8448eb211c80319c-c8ad6b7169203331-01"


class TelemetryContract:
    """The trace context of a run, for every store; the backlog, for stores with the capability `DueRunStore`."""

    async def test_a_run_keeps_the_trace_context_of_its_creation(self, store: RunStore) -> None:
        claim = await created(store, replace(new_run(), traceparent=FIRST))
        await committed(store, change(claim, [visit("fetch", 2)]))
        assert (await loaded(store)).traceparent == FIRST
        await created(store, new_run("untraced"))
        assert (await loaded(store, "untraced")).traceparent is None

    async def test_a_change_replaces_the_trace_context(self, store: RunStore) -> None:
        claims = [await created(store, new_run("a")), await created(store, replace(new_run("b"), traceparent=FIRST))]
        changes = [replace(change(each, [visit("fetch", 2)]), traceparent=SECOND) for each in claims]
        ordinary = change(await created(store, replace(new_run("c"), traceparent=FIRST)), [visit("fetch", 2)])
        assert await store.commit([changes[0], ordinary, changes[1]]) == [CommitOutcome.COMMITTED] * 3
        assert [(await loaded(store, each)).traceparent for each in "abc"] == [SECOND, SECOND, FIRST]
        assert [len(await store.visits(each)) for each in "abc"] == [1, 1, 1]

    async def test_the_trace_context_goes_with_the_last_change_too(self, store: RunStore) -> None:
        claim = await created(store)
        end = RunEnd(RunStatus.FAILED, moment(60), "fetch", "gone", "TRANSIENT")
        await committed(store, replace(change(claim, end=end), traceparent=FIRST))
        run = await loaded(store)
        assert (run.traceparent, run.status, run.error_step, run.completed_at) == (FIRST, "failed", "fetch", moment(60))
        assert run.owner is None

    async def test_a_fenced_change_stores_no_trace_context(self, store: RunStore) -> None:
        claim = await created(store, replace(new_run(), traceparent=FIRST))
        fenced = replace(change(claim, [visit("fetch", 2)]), epoch=claim.epoch + 1, traceparent=SECOND)
        assert await store.commit([fenced]) == [CommitOutcome.FENCED]
        assert (await loaded(store)).traceparent == FIRST

    async def test_a_worker_reads_the_trace_context_with_the_run(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, replace(due_run(), traceparent=FIRST))
        (found,) = await claimed(store)
        assert found.run.traceparent == FIRST
        release = Release(status=RunStatus.WAITING, due=in_seconds(0))
        made = replace(change(found.claim), release=release, traceparent=SECOND)
        assert await store.commit([made]) == [CommitOutcome.COMMITTED]
        (found,) = await claimed(store)
        assert (found.run.traceparent, found.run.status) == (SECOND, "waiting")

    async def test_the_backlog_counts_runs_without_an_owner_by_queue(self, store: RunStore) -> None:
        store = due_store(store)
        assert await store.backlog(10) == Backlog()
        await store.create([due_run("a"), due_run("b", queue="mail"), due_run("c", queue="mail"), new_run("held")])
        await store.create([due_run("delayed", due=in_seconds(3600)), due_run("done", queue="mail")])
        for run_id in ("p", "q"):
            await parked(store, Release(status=RunStatus.WAITING, due=in_seconds(3600)), run_id)
        await parked(store, Release(status=RunStatus.WAITING, due=in_seconds(0)), "woken")
        await store.delete(["done"])
        await store.sweep()
        found = await store.backlog(10)
        assert (found.due, found.parked) == ({"": 2, "mail": 2}, {"": 2})
        await claimed(store, queues=frozenset({"mail"}))
        found = await store.backlog(10)
        assert (found.due, found.parked) == ({}, {"": 2})

    async def test_the_backlog_of_a_parked_run_keeps_its_queue(self, store: RunStore) -> None:
        store = due_store(store)
        await created(store, due_run(queue="mail"))
        (found,) = await claimed(store, queues=frozenset({"mail"}))
        await park(store, found.claim, Release(status=RunStatus.WAITING))
        backlog = await store.backlog(10)
        assert (backlog.due, backlog.parked) == ({}, {"mail": 1})

    async def test_counting_the_backlog_ends_at_its_limit(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run(f"run-{number}") for number in range(5)])
        for number in range(4):
            await parked(store, Release(status=RunStatus.WAITING), f"parked-{number}")
        found = await store.backlog(3)
        assert (sum(found.due.values()), sum(found.parked.values())) == (3, 3)
