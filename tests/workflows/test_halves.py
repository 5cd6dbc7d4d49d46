"""Waiters of one commit resume in two halves if the store commits out of process, otherwise all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count
from types import SimpleNamespace

import pytest

from spine_async import Step, Workflow, WorkflowContext, WorkflowResult, WorkflowRunner
from spine_async._engine.commit import journal
from spine_async._model.run_change import RunChange
from spine_async._model.visit_filter import VisitFilter
from spine_async.ports import CommitOutcome
from spine_async.storage import MemoryRunStore

RUNS = 64


class Slow(MemoryRunStore):
    """Takes a few iterations of the event loop for a commit, and records which runs were in it."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[set[str]] = []
        self.is_committing = False

    async def commit(self, changes: Sequence[RunChange]) -> list[CommitOutcome]:
        self.groups.append({change.run_id for change in changes})
        self.is_committing = True
        for _ in range(3):
            await asyncio.sleep(0)
        self.is_committing = False
        return await super().commit(changes)


class Remote(Slow):
    commits_out_of_process = True


class Local(Slow):
    commits_out_of_process = False


@pytest.fixture(autouse=True)
def every_turn_takes_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by a second at each reading: a commit takes a second, and so does resuming waiters."""
    seconds = count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(seconds)), monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr(journal, "time", clock)


def chain(store: Slow, seen: list[bool]) -> Workflow:
    async def look(context: WorkflowContext, config: object) -> None:
        seen.append(store.is_committing)

    return Workflow("w", [Step.lambda_(f"step_{number}", look) for number in range(4)])


async def executed(store: Slow, seen: list[bool], runs: int) -> list[WorkflowResult]:
    workflow = chain(store, seen)
    async with WorkflowRunner(store=store) as runner:
        return await asyncio.gather(*(runner.execute(workflow, run_id=f"r{number}") for number in range(runs)))


@pytest.mark.anyio
async def test_one_half_of_the_runs_executes_while_the_other_is_committed() -> None:
    store, seen = Remote(), list[bool]()
    results = await executed(store, seen, RUNS)
    assert {result.status for result in results} == {"completed"}
    first, second = store.groups[-2:]
    assert len(first) == len(second) == RUNS // 2
    assert not first & second
    assert store.groups[1:] == [first, second] * ((len(store.groups) - 1) // 2)
    assert seen.count(True) >= RUNS  # of 4 · RUNS steps; none if all waiters resumed at once


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "runs"), [(Slow, RUNS), (Local, RUNS), (Remote, 31)])
async def test_all_waiters_are_resumed_at_once_if_two_halves_gain_nothing(kind: type[Slow], runs: int) -> None:
    store, seen = kind(), list[bool]()
    results = await executed(store, seen, runs)
    assert {result.status for result in results} == {"completed"}
    assert [len(group) for group in store.groups] == [runs] * 4
    assert not any(seen)


@pytest.mark.anyio
async def test_half_of_the_workers_of_a_map_execute_during_a_commit() -> None:
    store, seen = Remote(), list[bool]()

    async def look(context: WorkflowContext, config: object) -> dict[str, object]:
        seen.append(store.is_committing)
        return {"is": context.params["item"]}

    each = Step.map("each", items=range(1000), iterator=look, max_concurrency=RUNS)
    async with WorkflowRunner(store=store) as runner:
        result = await runner.execute(Workflow("w", [each]), run_id="r")
    result.raise_for_status()
    output = result.context.outputs["each"]
    assert isinstance(output, dict)
    assert output["results"] == [{"is": index} for index in range(1000)]
    assert seen.count(True) > 500
    assert sorted(row.item_index or 0 for row in await store.visits("r", VisitFilter(inside="each"))) == list(
        range(1000)
    )


@pytest.mark.anyio
@pytest.mark.parametrize("at", range(2, 12))
async def test_a_run_that_is_cancelled_while_it_waits_for_its_turn_can_be_resumed(at: int) -> None:
    store, ran = Remote(), list[tuple[str, str]]()
    tasks: dict[str, asyncio.Task[WorkflowResult]] = {}
    is_first = True

    async def step(context: WorkflowContext, config: object) -> None:
        nonlocal is_first
        ran.append((context.run_id, str(context.step_name)))
        if len(ran) > RUNS * at // 3 and is_first:
            is_first = False
            for run_id, task in tasks.items():
                if run_id != context.run_id:
                    task.cancel()

    workflow = Workflow("w", [Step.lambda_(f"step_{number}", step) for number in range(4)])
    async with WorkflowRunner(store=store) as runner:
        for number in range(RUNS):
            tasks[f"r{number}"] = asyncio.create_task(runner.execute(workflow, run_id=f"r{number}"))
        ended = await asyncio.gather(*tasks.values(), return_exceptions=True)
        for run_id, outcome in zip(tasks, ended, strict=True):
            if isinstance(outcome, asyncio.CancelledError):
                record = await runner.get_run(run_id)
                assert record.status in {"stopped", "completed"}
                if record.status == "stopped":
                    done = {row.step_name for row in await store.visits(run_id)}
                    before = len(ran)
                    await runner.resume(run_id)
                    assert done.isdisjoint(name for _, name in ran[before:])
            else:
                assert isinstance(outcome, WorkflowResult)
                assert outcome.status == "completed"
        for run_id in tasks:
            assert (await runner.get_run(run_id)).status == "completed"
            assert len(await store.visits(run_id)) == 4
