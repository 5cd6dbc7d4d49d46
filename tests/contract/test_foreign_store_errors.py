"""A store of the user's own that raises errors of its own, or answers wrongly: callers get a `StoreError`."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from spine_async import Step, StoreError, Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async._model.run_change import RunChange
from spine_async._model.run_claim import Claim
from spine_async._model.run_row import NewRun
from spine_async._model.visit_filter import OWN_VISITS
from spine_async._model.visit_record import ItemState
from spine_async._model.visit_row import PastPage, VisitRow
from spine_async.storage import MemoryRunStore

pytestmark = pytest.mark.anyio


class Broken(MemoryRunStore):
    """Raises `error` from one of its methods, before or after it has done its work. It reads visits in part."""

    method: str | None = None
    error: BaseException = RuntimeError("hunter2")
    is_done_first = False

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name != super().__getattribute__("method"):
            return attribute

        async def fails(*arguments: Any, **named: Any) -> None:
            if self.is_done_first:
                await attribute(*arguments, **named)
            raise self.error

        return fails

    async def past_visits(self, run_id: str, after: int, limit: int) -> PastPage:
        rows = await MemoryRunStore.visits(self, run_id, replace(OWN_VISITS, after=after, limit=limit))
        return PastPage(rows, rows[-1].seq if rows else 0)

    async def visit_outlines(self, run_id: str, after: int, limit: int) -> list[VisitRow]:
        return await MemoryRunStore.visits(self, run_id, replace(OWN_VISITS, after=after, limit=limit))

    async def item_states(self, run_id: str, path: str) -> list[ItemState]:
        return []


class Steps:
    """Counts its calls; the step `second` fails while it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = False

    def first(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        self.calls.append("first")

    def item(self, context: WorkflowContext, config: dict[str, Any]) -> None:
        self.calls.append(f"item {context.params['item']}")
        if self.fails and context.params["item"] == 2:
            raise ConnectionError("once")

    def flow(self) -> Workflow:
        each = Step.map("each", items=[1, 2], iterator=self.item, max_concurrency=1)
        return Workflow("w", [Step.lambda_("first", self.first), each])


async def _events(runner: WorkflowRunner) -> list[object]:
    return [each async for each in runner.events("r")]


CALLS: dict[str, Callable[[WorkflowRunner, Workflow], Awaitable[object]]] = {
    "load": lambda runner, flow: runner.get_run("r"),
    "claim": lambda runner, flow: runner.resume("r", workflow=flow),
    "past_visits": lambda runner, flow: runner.resume("r", workflow=flow),
    "visits": lambda runner, flow: runner.resume("r", workflow=flow),
    "last_event": lambda runner, flow: runner.execute(flow, run_id="r"),
    "runs": lambda runner, flow: runner.list_runs(),
    "events": lambda runner, flow: _events(runner),
    "last_visit": lambda runner, flow: runner.get_checkpoint("r", "first"),
    "visit_outlines": lambda runner, flow: runner.list_visits("r"),
    "request_stop": lambda runner, flow: runner.stop("r"),
    "delete": lambda runner, flow: runner.delete_run("r"),
    "create": lambda runner, flow: runner.execute(flow, run_id="other"),
    "commit": lambda runner, flow: runner.execute(flow, run_id="other"),
}

ERRORS = [RuntimeError("hunter2"), KeyError("hunter2"), ConnectionError("hunter2"), ExceptionGroup("g", [OSError()])]


def named(caught: pytest.ExceptionInfo[StoreError], method: str, error: BaseException) -> None:
    assert f"Broken.{method}" in str(caught.value)
    assert type(error).__name__ in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", ERRORS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("method", CALLS)
async def test_a_foreign_error_reaches_the_caller_as_a_store_error(method: str, error: BaseException) -> None:
    store, steps = Broken(), Steps()
    flow, runner = steps.flow(), WorkflowRunner(store=store)
    steps.fails = True
    assert (await runner.execute(flow, run_id="r")).status == "failed"
    if method == "request_stop":
        await store.claim("r", "elsewhere", None, ttl=60)
    store.method, store.error = method, error
    with pytest.raises(StoreError) as caught:
        await CALLS[method](runner, flow)
    named(caught, method, error)
    store.method, steps.fails = None, False
    if method != "request_stop":
        result = await runner.resume("r", workflow=flow)
        assert (result.status, steps.calls[-1], steps.calls.count("item 1")) == ("completed", "item 2", 1)


@pytest.mark.parametrize("is_done_first", [False, True])
async def test_a_commit_that_raises_releases_its_run_and_loses_nothing(is_done_first: bool) -> None:
    store, steps = Broken(), Steps()
    runner = WorkflowRunner(store=store, config=WorkflowRunnerConfig(lease_ttl=3600))

    def breaks(context: WorkflowContext, config: dict[str, Any]) -> None:
        steps.calls.append("breaks")
        store.method = "commit" if steps.calls.count("breaks") == 1 else None

    store.is_done_first = is_done_first
    flow = Workflow("w", [Step.lambda_("first", steps.first), Step.lambda_("breaks", breaks)])
    with pytest.raises(StoreError, match=r"Broken\.commit"):
        await runner.execute(flow, run_id="r")
    store.method = None
    result = await WorkflowRunner(store=store).execute(flow, run_id="r")
    assert result.status == "completed"
    assert steps.calls.count("first") == 1


class Selective(MemoryRunStore):
    """Raises an error of its own for everything of one run."""

    async def create(self, runs: Sequence[NewRun]) -> list[Claim | None]:
        self._refuse(runs)
        return await super().create(runs)

    async def commit(self, changes: Sequence[RunChange]) -> Any:
        self._refuse(changes)
        return await super().commit(changes)

    def _refuse(self, records: Sequence[NewRun | RunChange]) -> None:
        if any(each.run_id.startswith("bad") for each in records):
            raise ConnectionError("not this one")


async def test_other_runs_are_unharmed() -> None:
    runner = WorkflowRunner(store=Selective())
    flow = Workflow("w", [Step.lambda_("a", lambda context, config: None)])
    ended: dict[str, str] = {}

    async def run(run_id: str) -> None:
        try:
            ended[run_id] = (await runner.execute(flow, run_id=run_id)).status
        except StoreError as exc:
            ended[run_id] = str(exc)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(run, f"{'bad' if number % 5 == 0 else 'good'}-{number}")
    assert {each for run_id, each in ended.items() if run_id.startswith("good")} == {"completed"}
    assert all("Selective.create" in each for run_id, each in ended.items() if run_id.startswith("bad"))


class Forgetful(MemoryRunStore):
    """Gives no answers."""

    async def commit(self, changes: Sequence[RunChange]) -> Any:
        await super().commit(changes)
        return []


async def test_a_store_that_gives_too_few_answers() -> None:
    runner = WorkflowRunner(store=Forgetful())
    with pytest.raises(StoreError, match=r"Forgetful\.commit gave 0 answers for 1 "):
        await runner.execute(Workflow("w", [Step.lambda_("a", lambda context, config: None)]))


async def test_renewals_that_raise_are_logged_and_end_the_lease(caplog: pytest.LogCaptureFixture) -> None:
    store = Broken()

    async def waits(context: WorkflowContext, config: dict[str, Any]) -> None:
        store.method = "renew"
        await anyio.sleep(30)

    runner = WorkflowRunner(store=store, config=WorkflowRunnerConfig(lease_ttl=0.3))
    with (
        caplog.at_level(logging.WARNING, "spine_async"),
        anyio.fail_after(10),
        pytest.raises(StoreError, match="lease"),
    ):
        await runner.execute(Workflow("w", [Step.lambda_("waits", waits)]))
    assert "Broken.renew raised an error" in caplog.text
    assert "hunter2" not in caplog.text


ANSWERS: list[object] = [3, "x", [3], [object()], {"a": 1}]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("method", CALLS)
async def test_an_answer_of_a_wrong_type(method: str, answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    store, steps = Broken(), Steps()
    flow, runner = steps.flow(), WorkflowRunner(store=store)
    steps.fails = True
    assert (await runner.execute(flow, run_id="r")).status == "failed"
    if method == "request_stop":
        await store.claim("r", "elsewhere", None, ttl=60)

    async def answers(*arguments: Any, **named: Any) -> object:
        return answer

    monkeypatch.setattr(store, method, answers)
    with pytest.raises(StoreError, match=rf"Broken\.{method} returned a value of type \w+; it must return "):
        await CALLS[method](runner, flow)
