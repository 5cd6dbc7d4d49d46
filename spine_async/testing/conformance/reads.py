"""Contract of the optional reads: last rows, parts of visits, summaries of runs."""

from __future__ import annotations

from dataclasses import fields

import pytest

from spine_async._model.run_filter import RunFilter
from spine_async._model.status import RunStatus, StepStatus, StepType
from spine_async._model.visit_row import ONCE_NAME, PastVisit
from spine_async.ports import (
    LastRowStore,
    OutlineStore,
    RunStore,
    SummaryStore,
    finds_last_rows,
    reads_outlines,
    summarizes_runs,
)
from spine_async.testing.conformance.rows import change, committed, created, event, filled, new_run, visit

_STORED = (("step_started", "a"), ("step_failed", "a"), ("noted", "b"), ("step_failed", "a"), ("step_failed", "b"))


def _finder(store: RunStore) -> LastRowStore:
    if not finds_last_rows(store):
        pytest.skip("the store finds no last rows")
    return store


def _outliner(store: RunStore) -> OutlineStore:
    if not reads_outlines(store):
        pytest.skip("the store reads whole visits")
    return store


def _summarizer(store: RunStore) -> SummaryStore:
    if not summarizes_runs(store):
        pytest.skip("the store does not summarize runs")
    return store


class ReadContract:
    """For stores with the capabilities `LastRowStore`, `OutlineStore` and `SummaryStore`."""

    async def test_the_last_finished_visit_of_a_step(self, store: RunStore) -> None:
        finder, claim = _finder(store), await created(store)
        rows = [
            visit("a", 2),
            visit("a#2", 3, status=StepStatus.SKIPPED, output=None, error="not today"),
            visit("a#2[0]/a", 4, item_index=0),
            visit("a#10", 5),
            visit("a#11", 6, status=StepStatus.FAILED, output=None, error="E"),
            visit("a!", 7),
            visit("ab", 8),
            visit("b@until", 9, status=StepStatus.WAITING, step_type=StepType.WAIT),
        ]
        made = {row.path: row for row in (await committed(store, change(claim, rows))).visits}
        for step, path in (("a", "a#10"), ("ab", "ab"), ("a!", "a!"), ("a#2", "a#2"), ("a#2[0]/a", "a#2[0]/a")):
            assert await finder.last_visit("run-1", step) == made[path]
        for step in ("b", "a#11", "a#3", "", "%", "b@until"):
            assert await finder.last_visit("run-1", step) is None
        assert await finder.last_visit("nobody", "a") is None

    async def test_the_last_event_of_a_type_and_path(self, store: RunStore) -> None:
        finder, claim = _finder(store), await created(store)
        events = [event(kind, number, step=step) for number, (kind, step) in enumerate(_STORED, 2)]
        made = await committed(store, change(claim, [visit("z", 8, started_seq=7)], events))
        assert await finder.last_event("run-1", "step_failed", "a") == made.events[3]
        assert await finder.last_event("run-1", "step_started", "a") == made.events[0]
        assert await finder.last_event("run-1", "step_failed", "b") == made.events[4]
        for kind, path in (("step_started", "b"), ("noted", "a"), ("step_failed", "")):
            assert await finder.last_event("run-1", kind, path) is None
        assert await finder.last_event("nobody", "step_failed", "a") is None

    async def test_past_visits_have_all_fields_that_a_resume_reads(self, store: RunStore) -> None:
        outliner, claim = _outliner(store), await created(store)
        rows = [
            visit("a", 3, started_seq=2, updates='{"n":1}', quality='{"record_count":2}', attempts=3),
            visit("b", 4, output=None, output_size=0, status=StepStatus.SKIPPED, error="not today"),
            visit("m[0]/x", 5, item_index=0, item_params='{"item":7}'),
            visit("a/@once:1", 6, status=StepStatus.WAITING),
        ]
        rows[-1].step_name = ONCE_NAME
        await committed(store, change(claim, rows))
        whole, past = await store.visits("run-1"), await outliner.past_visits("run-1", 0, 10)
        assert [row.path for row in past.visits] == ["a", "b"]
        assert [_needed(row) for row in past.visits] == [_needed(row) for row in whole]
        nothing = await outliner.past_visits("nobody", 0, 10)
        assert (list(nothing.visits), nothing.last_seq) == ([], 0)

    async def test_past_visits_come_in_pages(self, store: RunStore) -> None:
        outliner, claim = _outliner(store), await created(store)
        given = ["a[0]/x", "a[1]/x", "a", "a#2[0]/x", "a#2", "ab", "b[0]/a[0]/x", "b"]
        await committed(store, change(claim, [visit(path, number) for number, path in enumerate(given, 2)]))
        paths, after = [], 0
        while (page := await outliner.past_visits("run-1", after, 3)).visits:
            paths += [row.path for row in page.visits]
            after = page.last_seq
        assert paths == ["a", "a#2", "ab", "b"]

    async def test_counts_are_by_status_and_stop_at_the_limit(self, store: RunStore) -> None:
        summarizer = _summarizer(store)
        await filled(store)
        assert await summarizer.count_runs(RunFilter()) == {"running": 4, "completed": 1, "failed": 1}
        assert await summarizer.count_runs(RunFilter(limit=3)) == {"running": 3, "completed": 1, "failed": 1}
        assert await summarizer.count_runs(RunFilter(workflow_name="orders", limit=3)) == {"running": 2, "failed": 1}
        assert await summarizer.count_runs(RunFilter(status=RunStatus.FAILED)) == {"failed": 1}
        assert await summarizer.count_runs(RunFilter(run_id_prefix="r", limit=3)) == {
            "running": 3,
            "completed": 1,
            "failed": 1,
        }
        assert await summarizer.count_runs(RunFilter(workflow_name="nothing")) == {}

    async def test_the_names_of_the_workflows_of_stored_runs(self, store: RunStore) -> None:
        summarizer = _summarizer(store)
        assert await summarizer.workflow_names() == []
        await store.create([new_run(f"r{n}", workflow=name) for n, name in enumerate(["b", "a", "b", "a b"])])
        assert sorted(await summarizer.workflow_names()) == ["a", "a b", "b"]
        await store.delete(["r1"])
        assert sorted(await summarizer.workflow_names()) == ["a b", "b"]


def _needed(row: PastVisit) -> dict[str, object]:
    return {each.name: getattr(row, each.name) for each in fields(PastVisit)}
