"""Contract of `commit` for changes that are not refused."""

from __future__ import annotations

from spine_async._model.run_change import RunEnd
from spine_async._model.status import RunStatus
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
    visit,
)


class CommitContract:
    """After `commit` has returned, the whole change is stored: visits, events and the state of the run."""

    async def test_a_change_writes_visits_events_and_state_together(self, store: RunStore) -> None:
        claim = await created(store)
        made = change(claim, [visit("fetch", 3, started_seq=2)], [event("priced", 4, step="fetch")])
        await committed(store, made)
        assert await store.visits("run-1") == list(made.visits)
        assert [each.seq for each in await store.events("run-1", 0, 10)] == [1, 2, 3, 4]
        run = await loaded(store)
        assert (run.next_seq, run.epoch, run.status, run.updated_at) == (5, 1, RunStatus.RUNNING, made.at)

    async def test_a_repeated_change_is_written_once(self, store: RunStore) -> None:
        claim = await created(store)
        made = change(claim, [visit("fetch", 3, started_seq=2)], [event("priced", 4, step="fetch")])
        await committed(store, made)
        assert await store.commit([made]) == [CommitOutcome.COMMITTED]
        assert len(await store.visits("run-1")) == 1
        assert [each.seq for each in await store.events("run-1", 0, 10)] == [1, 2, 3, 4]

    async def test_commits_follow_one_another(self, store: RunStore) -> None:
        claim = await created(store)
        for number in range(2, 22):
            claim = moved(claim, await committed(store, change(claim, [visit(f"step-{number}", number)])))
        assert [row.seq for row in await store.visits("run-1")] == list(range(2, 22))
        assert (await loaded(store)).next_seq == 22

    async def test_one_call_takes_changes_of_many_runs(self, store: RunStore) -> None:
        claims = [claim for claim in await store.create([new_run(f"run-{n}") for n in range(20)]) if claim]
        changes = [change(claim, [visit("fetch", 2, output=f"{claim.run_id!r}")]) for claim in claims]
        assert await store.commit(changes) == [CommitOutcome.COMMITTED] * 20
        for claim in claims:
            (row,) = await store.visits(claim.run_id)
            assert row.output == f"{claim.run_id!r}"

    async def test_one_change_takes_many_visits_and_events(self, store: RunStore) -> None:
        claim = await created(store)
        visits = [visit(f"step-{number}", number) for number in range(2, 502)]
        events = [event("noted", number) for number in range(502, 1002)]
        await committed(store, change(claim, visits, events))
        assert len(await store.visits("run-1")) == 500
        assert [each.seq for each in await store.events("run-1", 0, 2000)] == list(range(1, 1002))

    async def test_commit_of_nothing_gives_nothing(self, store: RunStore) -> None:
        assert await store.commit([]) == []

    async def test_a_change_may_contain_only_the_state(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, status=RunStatus.WAITING))
        assert (await loaded(store)).status is RunStatus.WAITING

    async def test_a_waiting_run_goes_on(self, store: RunStore) -> None:
        claim = await created(store)
        claim = moved(claim, await committed(store, change(claim, status=RunStatus.WAITING)))
        await committed(store, change(claim, [visit("pause", 2)]))
        assert (await loaded(store)).status is RunStatus.RUNNING

    async def test_a_completed_run_has_its_end(self, store: RunStore) -> None:
        claim = await created(store)
        end = RunEnd(RunStatus.COMPLETED, moment(60))
        await committed(store, change(claim, [visit("fetch", 2)], [event("workflow_completed", 3)], end=end))
        run = await loaded(store)
        assert (run.status, run.completed_at, run.next_seq) == (RunStatus.COMPLETED, moment(60), 4)
        assert (run.error_step, run.error, run.error_category, run.stop_reason) == (None,) * 4

    async def test_a_failed_run_has_its_error(self, store: RunStore) -> None:
        claim = await created(store)
        end = RunEnd(RunStatus.FAILED, moment(60), "fetch", "OSError: gone", "TRANSIENT")
        await committed(store, change(claim, events=[event("workflow_failed", 2)], end=end))
        run = await loaded(store)
        stored = (run.status, run.completed_at, run.error_step, run.error, run.error_category)
        assert stored == (RunStatus.FAILED, moment(60), "fetch", "OSError: gone", "TRANSIENT")

    async def test_a_stopped_run_has_its_reason(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, end=RunEnd(RunStatus.STOPPED, moment(60), stop_reason="shutdown")))
        run = await loaded(store)
        assert (run.status, run.stop_reason, run.error) == (RunStatus.STOPPED, "shutdown", None)

    async def test_a_group_of_every_kind_gives_each_run_its_own_state(self, store: RunStore) -> None:
        """One group with runs that continue, begin a wait, end a wait, and complete."""
        names = ["goes on", "waits", "goes on after a wait", "completes", "waits too"]
        claims = [claim for claim in await store.create([new_run(name) for name in names]) if claim]
        waiting = change(claims[2], status=RunStatus.WAITING, next_seq=3)
        await committed(store, waiting)
        claims[2] = moved(claims[2], waiting)
        made = [
            change(claims[0], [visit("a", 2)]),
            change(claims[1], [visit("a", 2)], status=RunStatus.WAITING),
            change(claims[2], [visit("a", 3)]),
            change(claims[3], [visit("a", 2)], end=RunEnd(RunStatus.COMPLETED, moment(9))),
            change(claims[4], [visit("a", 2)], status=RunStatus.WAITING),
        ]
        assert await store.commit(made) == [CommitOutcome.COMMITTED] * 5
        states = [(await loaded(store, name)).status for name in names]
        running, wait = RunStatus.RUNNING, RunStatus.WAITING
        assert states == [running, wait, running, RunStatus.COMPLETED, wait]

    async def test_rows_that_their_creator_changes_later_are_stored_as_they_were(self, store: RunStore) -> None:
        made = change(await created(store), [visit("fetch", 2)], [event("priced", 3, step="fetch")])
        await committed(store, made)
        (row,), (stored_event,), commit_id = made.visits, made.events, made.commit_id
        row.seq, row.commit_id, stored_event.seq = 99, "another", 98
        (stored,) = await store.visits("run-1")
        assert (stored.seq, stored.commit_id) == (2, commit_id)
        assert [each.seq for each in await store.events("run-1", 0, 10)] == [1, 2, 3]
