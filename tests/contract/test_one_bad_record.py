"""A record that a database cannot store harms only its own run."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from spine_async import (
    CorruptRecordError,
    DefinitionError,
    Step,
    StoreError,
    StoreUnavailableError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
)
from spine_async._model import workflow as workflow_module
from spine_async._model.run_change import RunChange
from spine_async._model.run_row import NewRun
from spine_async.ports import CommitOutcome
from spine_async.storage import SqlRunStore
from spine_async.testing.conformance.rows import created, new_run
from tests.storage.plain_sql import execute

pytestmark = pytest.mark.anyio


async def work(context: WorkflowContext, config: Any) -> dict[str, str]:
    return {"run": context.run_id}


def nested(name: str, depth: int) -> Workflow:
    """Maps inside of each other, with `depth` names of 200 characters."""
    iterator: Any = Workflow(steps=[Step.lambda_("leaf", work)])
    for level in range(depth):
        iterator = Workflow(steps=[Step.map(f"{name * 199}{chr(97 + level)}", items=[1], iterator=iterator)])
    return Workflow("nested", iterator.steps)


@pytest.mark.parametrize("version", [2**31, 2**32, 2**63, 2**64, 10**40])
def test_a_version_that_no_database_stores_is_refused_when_the_workflow_is_built(version: int) -> None:
    with pytest.raises(DefinitionError, match=r"workflow 'w': version is larger than 2,147,483,647"):
        Workflow("w", [Step.lambda_("a", work)], version=version)


async def test_the_largest_version_is_stored(open_runner: Any) -> None:
    runner = await open_runner()
    await runner.execute(Workflow("w", [Step.lambda_("a", work)], version=2**31 - 1), run_id="r")
    assert (await runner.get_run("r")).workflow_version == 2**31 - 1


def test_maps_whose_results_would_be_nested_too_deeply_are_refused_when_the_workflow_is_built() -> None:
    def maps(depth: int) -> Workflow:
        step = Step.map("m", items=[1], iterator=maps(depth - 1)) if depth else Step.wait("w", 1)
        return Workflow(steps=[step])

    maps(30)
    with pytest.raises(DefinitionError, match="nested too deeply"):
        maps(100)


def test_paths_that_an_index_cannot_hold_are_refused_when_the_workflow_is_built() -> None:
    with pytest.raises(DefinitionError, match=r"🐎.*bytes in UTF-8.*shorter names or fewer nested steps"):
        nested("🐎", 4)
    with pytest.raises(DefinitionError, match="bytes in UTF-8"):
        nested("x", 12)


@pytest.mark.parametrize(("name", "depth"), [("🐎", 3), ("漢", 4), ("x", 11)])
async def test_the_longest_paths_are_stored(open_runner: Any, name: str, depth: int) -> None:
    """The names differ in each character, because PostgreSQL compresses the values of an index."""
    runner = await open_runner()
    result = await runner.execute(nested(name, depth), run_id="r")
    assert result.status == "completed", result.error
    assert len(await runner.list_checkpoints("r")) == depth + 1


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions are not checked, so that the database has to refuse."""
    monkeypatch.setattr(workflow_module, "MAX_STORED_INT", 10**100)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("bad", [0, 7, 16])
async def test_a_creation_that_is_refused_fails_no_other(open_runner: Any, database_url: str, bad: int) -> None:
    runner = await open_runner()
    await runner.execute(Workflow("w", [Step.lambda_("a", work)]))
    outcomes: dict[str, Any] = {}

    async def run(number: int) -> None:
        version = 2**63 if number == bad else 1
        try:
            result = await runner.execute(
                Workflow("w", [Step.lambda_("a", work)], version=version), run_id=f"run-{number:02}"
            )
            outcomes[f"run-{number:02}"] = result.status
        except StoreError as exc:
            outcomes[f"run-{number:02}"] = exc

    async with anyio.create_task_group() as tasks:
        for number in range(17):
            tasks.start_soon(run, number)
    refused = outcomes.pop(f"run-{bad:02}")
    assert set(outcomes.values()) == {"completed"}
    assert isinstance(refused, StoreError)
    assert not isinstance(refused, StoreUnavailableError)
    shown = f"{refused} {refused.__cause__}"
    assert not [run_id for run_id in outcomes if run_id in shown]
    assert "check that" not in shown


class Spoiling(SqlRunStore):
    """Replaces a value of the runs whose id begins with `bad` by one that the database refuses."""

    def __init__(self, url: str, spoil: Callable[[RunChange], None]) -> None:
        super().__init__(url)
        self.spoil = spoil
        self.groups: list[int] = []

    async def commit(self, changes: Any) -> list[CommitOutcome]:
        self.groups.append(len(changes))
        for change in changes:
            if change.run_id.startswith("bad"):
                self.spoil(change)
        return await super().commit(changes)


def _large_number(change: RunChange) -> None:
    for visit in change.visits:
        visit.attempts = 2**63


def _long_path(change: RunChange) -> None:
    for visit in change.visits:
        visit.path = "".join(chr(0x4E00 + (number * 7919) % 20_000) for number in range(4_000))


def _not_a_number(change: RunChange) -> None:
    for visit in change.visits:
        visit.output_size = "many"  # type: ignore[assignment]


def _nul(change: RunChange) -> None:
    for visit in change.visits:
        visit.output = '"a\x00b"'


def _surrogate(change: RunChange) -> None:
    for visit in change.visits:
        visit.output = '"\ud800"'


@pytest.mark.parametrize("spoil", [_large_number, _long_path, _not_a_number, _nul, _surrogate])
async def test_a_commit_that_is_refused_fails_no_other(
    database_url: str, spoil: Callable[[RunChange], None], make_runner: Any
) -> None:
    store = Spoiling(database_url, spoil)
    arrived, together = [], anyio.Event()
    outcomes: dict[str, Any] = {}

    async def meet(context: WorkflowContext, config: Any) -> dict[str, str]:
        arrived.append(context.run_id)
        if len(arrived) == 9:
            together.set()
        await together.wait()
        return {"secret": "TOPSECRET"}

    async with WorkflowRunner(store=store) as runner:

        async def run(run_id: str) -> None:
            try:
                outcomes[run_id] = (
                    await runner.execute(Workflow("w", [Step.lambda_("a", meet)]), run_id=run_id)
                ).status
            except StoreError as exc:
                outcomes[run_id] = exc

        async with anyio.create_task_group() as tasks:
            for number in range(9):
                tasks.start_soon(run, f"bad-{number}" if number in {3, 5} else f"good-{number}")
    assert max(store.groups) == 9
    good = {outcome for run_id, outcome in outcomes.items() if run_id.startswith("good")}
    assert good == {"completed"}
    for run_id in ("bad-3", "bad-5"):
        if outcomes[run_id] == "completed":
            continue  # SQLite has no limit for an index row, and stores any type and U+0000
        assert isinstance(outcomes[run_id], StoreError)
        assert not isinstance(outcomes[run_id], StoreUnavailableError), outcomes[run_id]
        assert not [other for other in outcomes if other != run_id and other in str(outcomes[run_id])]
        assert "TOPSECRET" not in str(outcomes[run_id])


class Counting(SqlRunStore):
    """Records how large the groups are that it is asked to write."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.created: list[int] = []
        self.committed: list[int] = []

    async def create(self, runs: Any) -> list[Any]:
        self.created.append(sum(_size_of(run) for run in runs))
        return await super().create(runs)

    async def commit(self, changes: Any) -> list[CommitOutcome]:
        rows = [visit for change in changes for visit in change.visits]
        self.committed.append(sum(len(row.output or "") + len(row.item_params or "") for row in rows))
        return await super().commit(changes)


def _size_of(run: NewRun) -> int:
    return len(run.params)


async def test_a_group_is_bounded_in_bytes(database_url: str) -> None:
    """Thirty items of 2 MB that end together make no message of 60 MB, and a small run does not wait for them all."""
    store = Counting(database_url)
    arrived, together, order = [0], anyio.Event(), list[str]()

    async def big(context: WorkflowContext, config: Any) -> dict[str, str]:
        arrived[0] += 1
        if arrived[0] == 30:
            together.set()
        await together.wait()
        return {"text": "x" * 2_000_000}

    async def small(context: WorkflowContext, config: Any) -> None:
        await together.wait()

    async with WorkflowRunner(store=store) as runner:

        async def note(run_id: str, run: Awaitable[Any]) -> None:
            result = await run
            assert result.status == "completed", result.error
            order.append(run_id)

        step = Step.map("each", items=range(30), iterator=big, max_concurrency=30, collect=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(note, "big", runner.execute(Workflow("big", [step]), run_id="big"))
            tasks.start_soon(note, "small", runner.execute(Workflow("small", [Step.lambda_("a", small)])))
        assert order == ["small", "big"]
        assert max(store.committed) <= 20_000_000
        assert sum(store.committed) >= 60_000_000
        events = [event.seq async for event in runner.events("big")]
        assert events == list(range(1, len(events) + 1))
        seen = 0
        while page := await runner.list_checkpoints("big", limit=10, after=seen):
            seen = page[-1].seq
        assert seen == len(events) - 1


async def test_a_group_of_creations_is_bounded_in_bytes(database_url: str) -> None:
    store = Counting(database_url)
    async with WorkflowRunner(store=store) as runner:
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                params = {"text": "x" * 3_000_000, "n": number}
                tasks.start_soon(
                    lambda given: runner.execute(Workflow("w", [Step.lambda_("a", work)]), params=given), params
                )
        assert max(store.created) <= 20_000_000
        assert len(await runner.list_runs(status="completed")) == 12


async def test_a_run_that_cannot_be_read_does_not_keep_the_others_from_being_recovered(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqlRunStore(sqlite_url)
    for number in range(3):
        await created(
            store, replace(new_run(f"r{number}", workflow="w", ttl=0.0), owner="elsewhere/1/1/x", workflow_version=1)
        )
    execute(sqlite_url, "UPDATE core_workflow_runs SET started_at = 'hunter2' WHERE run_id = 'r1'")
    workflow = Workflow("w", [Step.lambda_(name, work) for name in ("a", "b", "fetch")])
    runner = WorkflowRunner(store=store, workflows=[workflow], work=False)
    async with runner:
        assert sorted(each.run_id for each in await runner.recover()) == ["r0", "r2"]
        assert await runner.recover() == []
        with pytest.raises(CorruptRecordError, match="'r1'"):
            await runner.list_runs()
    assert caplog.text.count("run 'r1': column 'started_at'") == 1
    assert "hunter2" not in caplog.text
