"""Contract of what shows the work of a store: the runs of an owner, the numbers by queue, and waits for signals."""

from __future__ import annotations

from dataclasses import replace

from spine_async._model.run_change import Release, RunEnd
from spine_async._model.run_claim import Claim
from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus
from spine_async._model.visit_row import EventRow
from spine_async.ports import RunStore, summarizes_runs
from spine_async.testing.conformance.due_rows import at_seconds, claimed, due_run, due_store, in_seconds, park
from spine_async.testing.conformance.rows import change, committed, created, moment, new_run, visit

SIGNAL = '{"signal":"approval","until":null}'


def announced(path: str, seq: int, metadata: str = SIGNAL, *, at: float = 0.0) -> EventRow:
    """The event of a visit that begins to wait."""
    name = path.rpartition("/")[2].partition("#")[0]
    return EventRow("step_started", name, moment(at), metadata, path, seq)


class OverviewContract:
    """The runs of an owner, for every store; the rest for stores with the capability `DueRunStore`."""

    async def test_runs_are_selected_by_their_owner(self, store: RunStore) -> None:
        for run_id, owner in (("a", "one"), ("b", "two"), ("c", "one"), ("d", "one")):
            await created(store, replace(new_run(run_id, at=ord(run_id)), owner=owner))
        claim = await store.claim("d", "one", None, ttl=60)
        assert isinstance(claim, Claim)
        ended = replace(change(claim, end=RunEnd(RunStatus.COMPLETED, moment(500))), expected_seq=claim.next_seq)
        await committed(store, ended)
        assert [run.run_id for run in await store.runs(RunFilter(owner="one"))] == ["c", "a"]
        assert [run.run_id for run in await store.runs(RunFilter("orders", RunStatus.RUNNING, owner="two"))] == ["b"]
        assert await store.runs(RunFilter(owner="nobody")) == []
        if summarizes_runs(store):
            assert await store.count_runs(RunFilter(owner="one")) == {RunStatus.RUNNING: 2}

    async def test_the_backlog_counts_held_and_delayed_runs(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run("now", queue="mail"), due_run("soon", queue="mail", due=in_seconds(3600))])
        await store.create([due_run("later", queue="mail", due=at_seconds(3600)), new_run("held")])
        await store.create([due_run("alone", due=at_seconds(7200)), due_run("taken", queue="mail")])
        await store.claim("taken", "worker-2", None, ttl=60)
        found = await store.backlog(10)
        assert found.delayed == {"mail": 2, "": 1}
        assert found.held == {("worker-1", ""): 1, ("worker-2", "mail"): 1}
        assert (found.due, found.is_partial) == ({"mail": 1}, False)

    async def test_the_backlog_names_the_oldest_new_run_of_a_queue(self, store: RunStore) -> None:
        store = due_store(store)
        oldest, later = due_run("a", queue="mail", due=at_seconds(-900)), due_run("b", queue="mail")
        await store.create([later, oldest])
        begun = due_run("begun", queue="mail", due=at_seconds(-9000))
        await created(store, begun)
        (found,) = await claimed(store, queues=frozenset({"mail"}), limit=1)
        assert found.run.run_id == "begun"
        await park(store, found.claim, Release(status=RunStatus.PENDING, due=in_seconds(0)))
        oldest_due = (await store.backlog(10)).oldest["mail"]
        assert oldest.due is not None
        assert abs((oldest_due - oldest.due.at).total_seconds()) < 0.01

    async def test_the_backlog_says_when_it_is_not_complete(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run(f"run-{number}", due=in_seconds(3600)) for number in range(4)])
        found = await store.backlog(3)
        assert (found.delayed, found.is_partial) == ({"": 3}, True)
        assert (await store.backlog(5)).is_partial is False

    async def test_the_backlog_knows_which_queues_are_listed(self, store: RunStore) -> None:
        store = due_store(store)
        await store.create([due_run()])  # a file of SQLite begins to exist
        assert (await store.backlog(10)).listed == {}
        await store.unlisted_queues(["mail", "default"])
        assert set((await store.backlog(10)).listed) == {"mail", "default"}

    async def test_open_waits_are_the_announced_visits_that_have_not_ended(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        await committed(store, change(claim, events=[announced("first", 2), announced("second", 3)]))
        await store.create([new_run("other"), new_run("third")])
        waits = await store.open_waits(["run-1", "other", "unknown"])
        assert [(each.run_id, each.path, each.step_name) for each in waits] == [
            ("run-1", "first", "first"),
            ("run-1", "second", "second"),
        ]
        assert [(each.metadata, each.since) for each in waits] == [(SIGNAL, moment(0))] * 2
        following = change(claim, [visit("first", 4)])
        await committed(store, replace(following, expected_seq=4, next_seq=5))
        assert [each.path for each in await store.open_waits(["run-1"])] == ["second"]
        assert await store.open_waits([]) == []

    async def test_an_open_wait_is_announced_once_more_by_a_resume(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        again = announced("first", 3, SIGNAL.replace("null", '"2026-05-01T00:00:00+00:00"'), at=60)
        await committed(store, change(claim, events=[announced("first", 2), again]))
        (wait,) = await store.open_waits(["run-1"])
        assert (wait.since, wait.metadata) == (moment(60), again.metadata)

    async def test_other_steps_and_other_waits_are_no_open_waits(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        events = [announced("step", 2, "{}"), announced("nap", 3, '{"until":"2026-05-01T00:00:00+00:00"}')]
        emitted = EventRow("token", "step", moment(1), SIGNAL, "step", 4)
        await committed(store, change(claim, events=[*events, emitted]))
        assert await store.open_waits(["run-1"]) == []

    async def test_a_wait_inside_of_a_step_ends_with_this_step(self, store: RunStore) -> None:
        store = due_store(store)
        claim = await created(store)
        paths = ["both[a]/approval", "child/approval", "each[1]/approval"]
        events = [announced(path, number) for number, path in enumerate(paths, 2)]
        await committed(store, change(claim, events=events))
        assert [each.path for each in await store.open_waits(["run-1"])] == paths
        ended = change(claim, [visit("both", 5), visit("child", 6)])
        await committed(store, replace(ended, expected_seq=5, next_seq=7))
        assert [each.path for each in await store.open_waits(["run-1"])] == ["each[1]/approval"]
