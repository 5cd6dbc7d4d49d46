"""Contract of `delete`."""

from __future__ import annotations

from dataclasses import replace

from spine_async._model.run_change import RunEnd
from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus
from spine_async._model.visit_filter import VisitFilter
from spine_async.ports import CommitOutcome, DeleteIf, RunStore
from spine_async.testing.conformance.rows import change, committed, created, event, moment, moved, new_run, visit


class DeleteContract:
    """Deleting a run deletes all its rows and no others."""

    async def test_a_deleted_run_is_gone_with_all_it_had(self, store: RunStore) -> None:
        claim = await created(store)
        await committed(store, change(claim, [visit("m[0]/x", 2), visit("m", 3)], [event("noted", 4)]))
        assert await store.delete(["run-1"]) == ["run-1"]
        assert await store.load("run-1") is None
        assert await store.visits("run-1") == []
        assert await store.visits("run-1", VisitFilter(inside="m")) == []
        assert await store.events("run-1", 0, 10) == []
        assert await store.runs(RunFilter()) == []

    async def test_an_unknown_run_cannot_be_deleted(self, store: RunStore) -> None:
        assert await store.delete(["nobody"]) == []
        await created(store)
        await store.delete(["run-1"])
        assert await store.delete(["run-1"]) == []

    async def test_other_runs_stay(self, store: RunStore) -> None:
        claims = [claim for claim in await store.create([new_run("a"), new_run("a%"), new_run("b")]) if claim]
        for claim in claims:
            await committed(store, change(claim, [visit("fetch", 2)]))
        await store.delete(["a%"])
        assert sorted(run.run_id for run in await store.runs(RunFilter())) == ["a", "b"]
        assert len(await store.visits("a")) == len(await store.visits("b")) == 1

    async def test_a_deleted_id_can_be_created_again(self, store: RunStore) -> None:
        await committed(store, change(await created(store), [visit("fetch", 2)]))
        await store.delete(["run-1"])
        claim = await created(store)
        assert (claim.epoch, claim.next_seq) == (1, 2)
        assert await store.visits("run-1") == []
        assert len(await store.events("run-1", 0, 10)) == 1

    async def test_the_owner_of_a_deleted_run_cannot_commit_to_a_later_one(self, store: RunStore) -> None:
        """This also holds if the later runs are created as a group with the same ids."""
        names = ["a", "b", "c"]
        held = [claim for claim in await store.create([new_run(name) for name in names]) if claim]
        for name in names:
            await store.delete([name])
        again = [claim for claim in await store.create([new_run(name) for name in names]) if claim]
        outcomes = await store.commit([change(claim, [visit("stale", 2)]) for claim in held])
        assert outcomes == [CommitOutcome.FENCED] * 3
        for claim in again:
            await committed(store, change(claim, [visit("fetch", 2)]))
        assert [[row.path for row in await store.visits(name)] for name in names] == [["fetch"]] * 3

    async def test_several_runs_are_deleted_together(self, store: RunStore) -> None:
        claims = {each.run_id: each for each in await store.create(list(map(new_run, "abcd"))) if each}
        for name in "ac":
            await committed(store, change(claims[name], end=RunEnd(RunStatus.COMPLETED, moment(9))))
        assert await store.delete(["b", "a", "nobody", "b"], DeleteIf.ENDED) == ["a"]
        assert sorted(await store.delete(["b", "c", "nobody", "b"])) == ["b", "c"]
        assert [run.run_id for run in await store.runs(RunFilter())] == ["d"]

    async def test_a_run_under_way_can_be_excepted(self, store: RunStore) -> None:
        claim = await created(store)
        assert await store.delete(["run-1"], DeleteIf.ENDED) == []
        assert await store.load("run-1") is not None
        made = change(claim, [visit("fetch", 2)])
        await committed(store, made)
        waiting = change(moved(claim, made), status=RunStatus.WAITING)
        await committed(store, waiting)
        assert await store.delete(["run-1"], DeleteIf.ENDED) == []
        assert len(await store.visits("run-1")) == 1

    async def test_a_run_that_has_ended_is_deleted_either_way(self, store: RunStore) -> None:
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED):
            claim = await created(store)
            await committed(store, change(claim, end=RunEnd(status, moment(9))))
            assert await store.delete(["run-1"], DeleteIf.ENDED) == ["run-1"]
            assert await store.load("run-1") is None
            assert await store.delete(["run-1"], DeleteIf.ENDED) == []

    async def test_only_runs_that_have_ended_are_deleted_together(self, store: RunStore) -> None:
        names = ["completed", "failed", "stopped", "running", "waiting", "other"]
        claims = {claim.run_id: claim for claim in await store.create([new_run(name) for name in names]) if claim}
        for name in names:
            await committed(store, made := change(claims[name], [visit("fetch", 2)], [event("noted", 3)]))
            claims[name] = moved(claims[name], made)
        for name in ("completed", "failed", "stopped", "other"):
            status = RunStatus.COMPLETED if name == "other" else RunStatus(name)
            await committed(store, change(claims[name], end=RunEnd(status, moment(9))))
        await committed(store, change(claims["waiting"], status=RunStatus.WAITING))
        given = ["waiting", "completed", "nobody", "failed", "running", "stopped", "failed"]
        assert sorted(await store.delete(given, DeleteIf.UNUSED)) == ["completed", "failed", "stopped"]
        assert await store.delete(given, DeleteIf.UNUSED) == []
        assert await store.delete([], DeleteIf.UNUSED) == await store.delete([]) == []
        left = ["other", "running", "waiting"]
        assert sorted(run.run_id for run in await store.runs(RunFilter())) == left
        assert [len(await store.visits(name)) for name in names] == [0, 0, 0, 1, 1, 1]
        assert [bool(await store.events(name, 0, 9)) for name in names] == [False, False, False, True, True, True]

    async def test_a_child_is_not_deleted_with_others_before_its_parent_has_ended(self, store: RunStore) -> None:
        parent, child = await created(store), await created(store, replace(new_run("child"), parent_run_id="run-1"))
        await committed(store, change(child, end=RunEnd(RunStatus.COMPLETED, moment(9))))
        assert await store.delete(["child"], DeleteIf.UNUSED) == []
        assert await store.load("child") is not None
        await committed(store, change(parent, end=RunEnd(RunStatus.COMPLETED, moment(9))))
        assert await store.delete(["child"], DeleteIf.UNUSED) == ["child"]
        assert await store.load("child") is None
