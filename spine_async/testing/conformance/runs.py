"""Contract of `runs`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from spine_async._model.document import encode
from spine_async._model.run_change import RunEnd
from spine_async._model.run_filter import RunCursor, RunFilter
from spine_async._model.status import RunStatus
from spine_async.ports import RunStore, summarizes_runs
from spine_async.testing.conformance.rows import change, committed, created, filled, loaded, moment, new_run


class ListContract:
    """Runs are listed newest first, filtered and in pages."""

    async def _cursor(self, store: RunStore, run_id: str) -> RunCursor:
        run = await loaded(store, run_id)
        return RunCursor(run.created_at, run.key)

    async def _ids(self, store: RunStore, chosen: RunFilter) -> list[str]:
        return [run.run_id for run in await store.runs(chosen)]

    async def test_the_newest_comes_first(self, store: RunStore) -> None:
        await filled(store)
        assert await self._ids(store, RunFilter()) == ["r5", "r4", "r3", "r2", "r1", "r0"]

    async def test_listed_runs_are_complete(self, store: RunStore) -> None:
        await filled(store)
        for run in await store.runs(RunFilter()):
            assert run == await loaded(store, run.run_id)

    async def test_a_filter_by_workflow(self, store: RunStore) -> None:
        await filled(store)
        assert await self._ids(store, RunFilter(workflow_name="prices")) == ["r5", "r3", "r1"]
        assert await self._ids(store, RunFilter(workflow_name="nothing")) == []
        assert await self._ids(store, RunFilter(workflow_name="price%")) == []

    async def test_a_filter_by_status(self, store: RunStore) -> None:
        await filled(store)
        assert await self._ids(store, RunFilter(status=RunStatus.FAILED)) == ["r0"]
        assert await self._ids(store, RunFilter(status=RunStatus.RUNNING)) == ["r5", "r4", "r3", "r2"]
        assert await self._ids(store, RunFilter(status=RunStatus.WAITING)) == []

    async def test_runs_under_way_are_those_running_or_waiting(self, store: RunStore) -> None:
        await filled(store)
        waiting = await created(store, new_run("waits", at=9))
        await committed(store, change(waiting, status=RunStatus.WAITING))
        assert await self._ids(store, RunFilter(is_under_way=True)) == ["waits", "r5", "r4", "r3", "r2"]
        assert await self._ids(store, RunFilter(is_under_way=True, workflow_name="prices")) == ["r5", "r3"]
        assert await self._ids(store, RunFilter(is_under_way=True, status=RunStatus.FAILED)) == []
        assert len(await self._ids(store, RunFilter(is_under_way=False))) == 7

    async def test_a_filter_by_lease(self, store: RunStore) -> None:
        await filled(store)
        await created(store, new_run("short", at=9, ttl=0.0))
        assert await self._ids(store, RunFilter(is_leased=True)) == ["r5", "r4", "r3", "r2"]
        assert await self._ids(store, RunFilter(is_leased=False)) == ["short", "r1", "r0"]
        assert await self._ids(store, RunFilter(is_leased=False, is_under_way=True)) == ["short"]

    async def test_runs_without_an_owner_are_found_page_by_page(self, store: RunStore) -> None:
        await store.create([new_run(f"r{n}", at=n, ttl=60.0 if n % 2 else 0.0) for n in range(8)])
        lost = RunFilter(is_under_way=True, is_leased=False, limit=3)
        assert await self._ids(store, lost) == ["r6", "r4", "r2"]
        assert await self._ids(store, replace(lost, cursor=await self._cursor(store, "r2"))) == ["r0"]

    async def test_a_filter_by_workflow_and_status(self, store: RunStore) -> None:
        await filled(store)
        chosen = RunFilter(workflow_name="prices", status=RunStatus.COMPLETED)
        assert await self._ids(store, chosen) == ["r1"]

    async def test_a_limit_cuts_the_list(self, store: RunStore) -> None:
        await filled(store)
        assert await self._ids(store, RunFilter(limit=2)) == ["r5", "r4"]
        assert await self._ids(store, RunFilter(workflow_name="orders", limit=1)) == ["r4"]

    async def test_a_listing_continues_behind_a_cursor(self, store: RunStore) -> None:
        await filled(store)
        behind = RunFilter(cursor=await self._cursor(store, "r4"))
        assert await self._ids(store, replace(behind, limit=2)) == ["r3", "r2"]
        assert await self._ids(store, replace(behind, workflow_name="orders")) == ["r2", "r0"]
        assert await self._ids(store, replace(behind, is_oldest_first=True)) == ["r5"]
        assert await self._ids(store, RunFilter(cursor=await self._cursor(store, "r0"))) == []

    async def test_a_listing_continues_behind_a_run_that_was_deleted(self, store: RunStore) -> None:
        await filled(store)
        behind = RunFilter(cursor=await self._cursor(store, "r2"))
        assert await store.delete(["r2"])
        assert await self._ids(store, behind) == ["r1", "r0"]
        assert await self._ids(store, replace(behind, is_oldest_first=True)) == ["r3", "r4", "r5"]

    @pytest.mark.parametrize("is_oldest_first", [False, True])
    async def test_pages_miss_no_run_of_the_same_moment(self, store: RunStore, *, is_oldest_first: bool) -> None:
        await store.create([new_run(f"r{n}") for n in range(7)])
        seen: list[str] = []
        chosen = RunFilter(limit=2, is_oldest_first=is_oldest_first)
        while page := await self._ids(store, chosen):
            seen += page
            chosen = replace(chosen, cursor=await self._cursor(store, page[-1]))
        assert seen == sorted(seen, reverse=not is_oldest_first)
        assert len(seen) == 7

    async def test_the_oldest_may_come_first(self, store: RunStore) -> None:
        await filled(store)
        assert await self._ids(store, RunFilter(is_oldest_first=True, limit=3)) == ["r0", "r1", "r2"]
        assert await self._ids(store, RunFilter(is_oldest_first=True, workflow_name="prices")) == ["r1", "r3", "r5"]

    async def test_documents_are_left_out_on_request(self, store: RunStore) -> None:
        await filled(store)
        for run in await store.runs(RunFilter(with_documents=False)):
            whole = await loaded(store, run.run_id)
            assert run == replace(whole, params="", initial_outputs="", initial_quality="", metadata="")

    async def test_an_empty_store_lists_nothing(self, store: RunStore) -> None:
        assert await store.runs(RunFilter()) == []

    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            (RunFilter(queue="mail"), ["q2", "q1"]),
            (RunFilter(queue="mai"), []),
            (RunFilter(queue_key="k'1"), ["q1"]),
            (RunFilter(queue="mail", queue_key="none"), []),
            (RunFilter(stop_reason="closed \x00 today"), ["s"]),
            (RunFilter(error_category="INTERNAL"), ["f"]),
            (RunFilter(error_category="INTERNAL", status=RunStatus.STOPPED), []),
            (RunFilter(run_id_prefix="q"), ["q2", "q1"]),
            (RunFilter(run_id_prefix="q1"), ["q1"]),
            (RunFilter(run_id_prefix="Q"), []),
            (RunFilter(run_id_prefix="q", is_oldest_first=True), ["q1", "q2"]),
            (RunFilter(run_id_prefix="q", status=RunStatus.COMPLETED), []),
            (RunFilter(run_id_prefix="\U0010ffff"), []),
            (RunFilter(parent_run_id="q1"), []),
            (RunFilter(created_from=moment(2)), ["s", "q2"]),
            (RunFilter(created_until=moment(2)), ["q1", "f"]),
            (RunFilter(created_from=moment(1), created_until=moment(2)), ["q1"]),
            (RunFilter(ended_from=moment(60)), ["s", "f"]),
            (RunFilter(ended_from=moment(61)), ["s"]),
            (RunFilter(ended_until=moment(61)), ["f"]),
            (RunFilter(ended_until=moment(61), status=RunStatus.STOPPED), []),
        ],
    )
    async def test_a_filter_by_another_property(
        self, store: RunStore, chosen: RunFilter, expected: Sequence[str]
    ) -> None:
        failed, _, _, stopped = await store.create(
            [
                new_run("f", at=0),
                replace(new_run("q1", at=1), queue="mail", queue_key="k'1"),
                replace(new_run("q2", at=2), queue="mail"),
                new_run("s", at=3),
            ]
        )
        assert failed is not None
        assert stopped is not None
        await committed(store, change(failed, end=RunEnd(RunStatus.FAILED, moment(60), "s", "e", "INTERNAL")))
        end = RunEnd(RunStatus.STOPPED, moment(61), stop_reason="closed \x00 today")
        await committed(store, change(stopped, end=end))
        assert await self._ids(store, chosen) == expected
        if summarizes_runs(store):
            assert sum((await store.count_runs(chosen)).values()) == len(expected)

    @pytest.mark.parametrize(
        ("name", "value", "others"),
        [
            ("symbol", "IBM", ["ibm", "IBM ", ["IBM"], {"symbol": "IBM"}, None]),
            ("n", 1, ["1", 1.0, 10, True]),
            ("n", None, ["null", False, 0]),
            ('quo"te', 'say "so" and \\ and \\"', ['say "so"', "\\"]),
            ("nul\x00key", "a\x00b", ["a", "ab"]),
            ("back\\slash", "\\u0000", ["\x00", "\\\\u0000"]),
            ("a.b", {"c": [1, {"d": None}]}, [{"c": [1]}]),
            ("ключ 🔑", "значение \u2028", ["значение"]),
            ("", "empty key", ["empty"]),
        ],
    )
    async def test_a_filter_by_an_entry_of_the_partition(
        self, store: RunStore, name: str, value: object, others: Sequence[object]
    ) -> None:
        partitions = [{"a": 1, name: value, "z": 2}, {name: value}, {"inner": {name: value}}, {}]
        partitions += [{name: other} for other in others]
        runs = [replace(new_run(f"r{n}", at=n), partition=encode(each).text) for n, each in enumerate(partitions)]
        await store.create([*runs, replace(new_run("none", at=99), partition=None)])
        chosen = RunFilter(partition={name: encode(value).text})
        assert await self._ids(store, chosen) == ["r1", "r0"]
        assert await self._ids(store, replace(chosen, partition={**chosen.partition, "z": "2"})) == ["r0"]
