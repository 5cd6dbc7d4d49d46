"""Contract of `runs`."""

from __future__ import annotations

from dataclasses import replace

from spine_async._model.record import RunEnd, RunFilter
from spine_async._model.status import RunStatus
from spine_async.ports import RunStore
from spine_async.testing.conformance.rows import change, committed, created, loaded, moment, new_run


class ListContract:
    """Runs are listed newest first, filtered and in pages."""

    async def _fill(self, store: RunStore) -> None:
        """Six runs, r0 the oldest; even ones of `orders`, odd ones of `prices`; r0 failed, r1 completed."""
        runs = [new_run(f"r{n}", workflow="prices" if n % 2 else "orders", at=n) for n in (3, 1, 5, 0, 2, 4)]
        claims = {claim.run_id: claim for claim in await store.create(runs) if claim}
        await committed(store, change(claims["r0"], end=RunEnd(RunStatus.FAILED, moment(60), "s", "e", "INTERNAL")))
        await committed(store, change(claims["r1"], end=RunEnd(RunStatus.COMPLETED, moment(61))))

    async def _ids(self, store: RunStore, chosen: RunFilter) -> list[str]:
        return [run.run_id for run in await store.runs(chosen)]

    async def test_the_newest_comes_first(self, store: RunStore) -> None:
        await self._fill(store)
        assert await self._ids(store, RunFilter()) == ["r5", "r4", "r3", "r2", "r1", "r0"]

    async def test_listed_runs_are_complete(self, store: RunStore) -> None:
        await self._fill(store)
        for run in await store.runs(RunFilter()):
            assert run == await loaded(store, run.run_id)

    async def test_a_filter_by_workflow(self, store: RunStore) -> None:
        await self._fill(store)
        assert await self._ids(store, RunFilter(workflow_name="prices")) == ["r5", "r3", "r1"]
        assert await self._ids(store, RunFilter(workflow_name="nothing")) == []
        assert await self._ids(store, RunFilter(workflow_name="price%")) == []

    async def test_a_filter_by_status(self, store: RunStore) -> None:
        await self._fill(store)
        assert await self._ids(store, RunFilter(status=RunStatus.FAILED)) == ["r0"]
        assert await self._ids(store, RunFilter(status=RunStatus.RUNNING)) == ["r5", "r4", "r3", "r2"]
        assert await self._ids(store, RunFilter(status=RunStatus.WAITING)) == []

    async def test_runs_under_way_are_those_running_or_waiting(self, store: RunStore) -> None:
        await self._fill(store)
        waiting = await created(store, new_run("waits", at=9))
        await committed(store, change(waiting, status=RunStatus.WAITING))
        assert await self._ids(store, RunFilter(is_under_way=True)) == ["waits", "r5", "r4", "r3", "r2"]
        assert await self._ids(store, RunFilter(is_under_way=True, workflow_name="prices")) == ["r5", "r3"]
        assert await self._ids(store, RunFilter(is_under_way=True, status=RunStatus.FAILED)) == []
        assert len(await self._ids(store, RunFilter(is_under_way=False))) == 7

    async def test_a_filter_by_lease(self, store: RunStore) -> None:
        await self._fill(store)
        await created(store, new_run("short", at=9, ttl=0.0))
        assert await self._ids(store, RunFilter(is_leased=True)) == ["r5", "r4", "r3", "r2"]
        assert await self._ids(store, RunFilter(is_leased=False)) == ["short", "r1", "r0"]
        assert await self._ids(store, RunFilter(is_leased=False, is_under_way=True)) == ["short"]

    async def test_runs_without_an_owner_are_found_page_by_page(self, store: RunStore) -> None:
        await store.create([new_run(f"r{n}", at=n, ttl=60.0 if n % 2 else 0.0) for n in range(8)])
        lost = RunFilter(is_under_way=True, is_leased=False, limit=3)
        assert await self._ids(store, lost) == ["r6", "r4", "r2"]
        assert await self._ids(store, replace(lost, before="r2")) == ["r0"]

    async def test_a_filter_by_workflow_and_status(self, store: RunStore) -> None:
        await self._fill(store)
        chosen = RunFilter(workflow_name="prices", status=RunStatus.COMPLETED)
        assert await self._ids(store, chosen) == ["r1"]

    async def test_a_limit_cuts_the_list(self, store: RunStore) -> None:
        await self._fill(store)
        assert await self._ids(store, RunFilter(limit=2)) == ["r5", "r4"]
        assert await self._ids(store, RunFilter(workflow_name="orders", limit=1)) == ["r4"]

    async def test_a_listing_goes_on_before_a_run(self, store: RunStore) -> None:
        await self._fill(store)
        assert await self._ids(store, RunFilter(before="r4", limit=2)) == ["r3", "r2"]
        assert await self._ids(store, RunFilter(before="r4", workflow_name="orders")) == ["r2", "r0"]
        assert await self._ids(store, RunFilter(before="r0")) == []

    async def test_before_an_unknown_run_comes_nothing(self, store: RunStore) -> None:
        await self._fill(store)
        assert await self._ids(store, RunFilter(before="nobody")) == []

    async def test_pages_miss_no_run_of_the_same_moment(self, store: RunStore) -> None:
        await store.create([new_run(f"r{n}") for n in range(7)])
        seen: list[str] = []
        while page := await self._ids(store, RunFilter(before=seen[-1] if seen else None, limit=2)):
            seen += page
        assert sorted(seen) == [f"r{n}" for n in range(7)]

    async def test_an_empty_store_lists_nothing(self, store: RunStore) -> None:
        assert await store.runs(RunFilter()) == []
