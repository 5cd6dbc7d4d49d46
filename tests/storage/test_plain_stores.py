"""What the engine does for a store without capabilities."""

from __future__ import annotations

import inspect
from typing import Any, cast

import pytest

from spine_async import (
    Progress,
    RetentionPolicy,
    RunStatus,
    Step,
    StepStatus,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async._engine.runtime import plain_reads
from spine_async._model.run_filter import RunFilter
from spine_async.ports import (
    RunStore,
    finds_last_rows,
    keeps_due_runs,
    reads_outlines,
    summarizes_runs,
)
from spine_async.storage import FileRunStore, MemoryRunStore, RedisRunStore, SqlRunStore
from spine_async.testing import FaultInjectingStore, RunStoreConformance
from spine_async.testing.conformance.rows import filled, new_run
from tests.storage.plain_store import METHODS, PORT, PlainStore

pytestmark = pytest.mark.anyio


class PagedReads(PlainStore):
    """A store that has the capabilities of reads by means of the port of runs."""

    async def past_visits(self, *arguments: Any) -> Any:
        return await plain_reads.past_visits(self.plain, *arguments)

    async def last_visit(self, *arguments: Any) -> Any:
        return await plain_reads.last_visit(self.plain, *arguments)

    async def last_event(self, *arguments: Any) -> Any:
        return await plain_reads.last_event(self.plain, *arguments)

    async def count_runs(self, *arguments: Any) -> Any:
        return await plain_reads.count_runs(self.plain, *arguments)

    async def workflow_names(self, *arguments: Any) -> Any:
        return await plain_reads.workflow_names(self.plain, *arguments)

    async def visit_outlines(self, *arguments: Any) -> Any:
        raise AssertionError("no case of the contract asks for it")

    item_states = visit_outlines

    @property
    def plain(self) -> RunStore:
        return cast("RunStore", PlainStore(self._store))


class TestPagedReads(RunStoreConformance):
    """Reads page by page have the answers of the capabilities. Pages are small, so that several are read."""

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch) -> RunStore:
        monkeypatch.setattr(plain_reads, "_PAGE", 2)
        store = PagedReads(MemoryRunStore())
        assert all(has(store) for has in (finds_last_rows, reads_outlines, summarizes_runs))
        return cast("RunStore", store)


def test_the_port_has_ten_methods_besides_open_and_close() -> None:
    methods = {name for name, _ in inspect.getmembers(RunStore, inspect.isfunction) if not name.startswith("_")}
    assert methods == PORT
    assert len(METHODS) == 10


@pytest.mark.parametrize("kind", [MemoryRunStore, FileRunStore, RedisRunStore, SqlRunStore])
def test_the_stores_of_the_library_summarize_runs_and_find_last_rows(kind: type) -> None:
    found = [has(kind) for has in (summarizes_runs, finds_last_rows, reads_outlines)]
    assert found == [True, True, kind is SqlRunStore]


def test_a_store_with_faults_has_the_capabilities_of_the_store_that_it_wraps() -> None:
    plain = FaultInjectingStore(cast("RunStore", PlainStore(MemoryRunStore())))
    assert not any(has(plain) for has in (summarizes_runs, finds_last_rows, reads_outlines))
    assert keeps_due_runs(plain)
    whole = FaultInjectingStore(MemoryRunStore())
    assert summarizes_runs(whole)
    assert finds_last_rows(whole)
    assert not reads_outlines(whole)


async def test_a_count_reads_no_more_runs_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_reads, "_PAGE", 2)
    store = MemoryRunStore()
    await filled(store)
    sizes = list[int]()
    runs = store.runs

    async def counted(chosen: RunFilter) -> Any:
        found = await runs(chosen)
        assert not chosen.with_documents
        sizes.append(len(found))
        return found

    monkeypatch.setattr(store, "runs", counted)
    plain = cast("RunStore", PlainStore(store))
    assert await plain_reads.count_runs(plain, RunFilter(limit=3)) == {"running": 3, "completed": 1, "failed": 1}
    assert sum(sizes) == 5


class Failing:
    """A workflow with a map; its last step fails as long as it is told to, and notes its progress."""

    def __init__(self) -> None:
        self.fails = True
        each = Step.map("each", items=[1, 2, 3], iterator=self.item)
        self.workflow = Workflow("flow", [Step.lambda_("first", self.first), each, Step.lambda_("last", self.last)])
        self.seen: list[Progress | None] = []

    async def first(self, context: WorkflowContext, config: dict[str, Any]) -> dict[str, int]:
        return {"n": 1}

    async def item(self, context: WorkflowContext, config: dict[str, Any]) -> dict[str, object]:
        return {"item": context.params["item"]}

    async def last(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        self.seen.append(context.last_progress)
        context.progress(len(self.seen), 2)
        if self.fails:
            raise ConnectionError("gone")


async def test_a_runner_works_on_a_store_without_capabilities() -> None:
    store, flow = PlainStore(MemoryRunStore()), Failing()
    runner = WorkflowRunner(store=cast("RunStore", store))
    failed = await runner.execute(flow.workflow, run_id="r")
    assert failed.status == "failed"
    again = await runner.execute(flow.workflow, run_id="r")
    assert [each.status for each in again.step_metrics] == [each.status for each in failed.step_metrics]
    assert again.step_metrics[-1].status is StepStatus.FAILED
    assert [each.path for each in await runner.list_checkpoints("r")] == [
        *("first", "each[0]/item", "each[1]/item", "each[2]/item", "each"),
    ]
    found = await runner.get_checkpoint("r", "each[1]/item")
    assert found is not None
    assert found.path == "each[1]/item"
    assert (await runner.count_runs())[RunStatus.FAILED] == 1
    flow.fails = False
    assert (await runner.resume("r", workflow=flow.workflow)).status == "completed"
    assert (await runner.count_runs())[RunStatus.COMPLETED] == 1
    assert flow.seen == [None, Progress(1, 2)]
    await runner.execute(Workflow("other", [Step.lambda_("a", flow.first)]), run_id="other")
    assert await runner.prune(RetentionPolicy(completed=0, keep_last=1)) == 0
    await runner.execute(flow.workflow, run_id="newer")
    assert await runner.prune(RetentionPolicy(completed=0, keep_last=1)) == 1
    assert [run.run_id for run in await runner.list_runs()] == ["newer", "other"]
    await runner.delete_run("newer")
    assert set(store.calls) <= PORT


async def test_names_of_workflows_are_read_from_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_reads, "_PAGE", 2)
    store = MemoryRunStore()
    await store.create([new_run(f"r{number}", workflow=f"w{number % 3}", at=number) for number in range(7)])
    assert await plain_reads.workflow_names(cast("RunStore", PlainStore(store))) == ["w0", "w1", "w2"]
