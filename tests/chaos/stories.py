"""Workflows for the interruption tests: every kind of step; each handler writes a diary entry when it begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
from sqlalchemy import Connection, text

from spine_async import LocalDispatcher, RetryPolicy, Step, StepError, StepResult, Workflow, WorkflowContext
from tests.chaos.diary import Diary

AT_ONCE = RetryPolicy(max_attempts=3, initial_delay=0.0, jitter=False)
Pass = Callable[[str], Awaitable[None]]


async def go_on(point: str) -> None:
    """A failpoint without an action."""


class Story:
    """Handlers that write a diary entry when they begin, and reach a failpoint before and after their work.

    Args:
        diary: Takes the entries.
        reach: Called at each failpoint of a handler.
        hit: Called at each failpoint of the handler of a transaction.
    """

    def __init__(self, diary: Diary, reach: Pass = go_on, hit: Callable[[str], None] = lambda _: None) -> None:
        self._diary = diary
        self._reach = reach
        self._hit = hit

    def workflow(self, name: str) -> tuple[Workflow, LocalDispatcher]:
        dispatcher = LocalDispatcher()
        dispatcher.register("load", self._load)
        return Workflow(name, _CHAPTERS[name](self)), dispatcher

    def step(self, name: str, compute: Callable[[WorkflowContext], Any], **options: Any) -> Step:
        async def handler(context: WorkflowContext, config: Mapping[str, object]) -> object:
            await self._reach(f"{name} begins")
            self._note(context)
            result = compute(context)
            await anyio.lowlevel.checkpoint()
            await self._reach(f"{name} ends")
            return result

        return Step.lambda_(name, handler, **options)

    def thread_step(self, name: str, compute: Callable[[WorkflowContext], Any]) -> Step:
        def handler(context: WorkflowContext, config: Mapping[str, object]) -> object:
            self._note(context)
            return compute(context)

        return Step.lambda_(name, handler)

    def transaction(self, name: str) -> Step:
        """A step that writes its path to the ledger."""

        def handler(context: WorkflowContext, config: Mapping[str, object], connection: Connection) -> object:
            self._hit(f"{name} begins")
            self._note(context)
            connection.execute(text("CREATE TABLE IF NOT EXISTS chaos_ledger (entry TEXT)"))
            self._hit(f"{name} writes")
            connection.execute(text("INSERT INTO chaos_ledger VALUES (:entry)"), {"entry": context.idempotency_key})
            self._hit(f"{name} ends")
            return {"written": name}

        return Step.transaction(name, handler)

    def _note(self, context: WorkflowContext) -> None:
        path = str(context.idempotency_key).removeprefix(f"{context.run_id}/")
        self._diary.write("ran", context.run_id, path=path, attempt=context.attempt)

    async def _load(self, params: Mapping[str, object]) -> Mapping[str, object]:
        await self._reach("pipeline")
        return {"loaded": params["n"]}


def _number(context: WorkflowContext, step: str, key: str) -> int:
    return int(str(context.get_output(step, key)))


def _fetch(context: WorkflowContext) -> StepResult:
    return StepResult.ok({"rows": list(range(4)), "text": 'é\u2028 "quoted"'}, {"turns": 0})


def _flaky(context: WorkflowContext) -> dict[str, object]:
    if context.attempt == 1:
        raise StepError("not yet", category="TRANSIENT")
    return {"ok": True}


def _turn(context: WorkflowContext) -> StepResult:
    turns = int(str(context.params["turns"])) + 1
    return StepResult.ok({"turns": turns}, {"turns": turns})


def _sum(context: WorkflowContext) -> dict[str, object]:
    results: Any = context.get_output("each", "results")
    return {"sum": sum(each["score"] for each in results), "turns": context.params["turns"]}


def _item(story: Story) -> Workflow:
    inner = Step.map(
        "parts",
        items=[1, 2],
        iterator=Workflow("part", [story.step("part", lambda context: {"part": context.params["part"]})]),
        item_param="part",
        max_concurrency=2,
    )
    return Workflow(
        "item",
        [
            story.step("clean", lambda context: StepResult.ok({"item": context.params["item"]}, {"cleaned": True})),
            inner,
            story.step("score", lambda context: {"score": _number(context, "clean", "item") * 10}),
        ],
    )


def _journey(story: Story) -> list[Step]:
    """All features: retries, a nested map, a loop, a pipeline, a wait, a handler in a thread."""
    return [
        story.step("fetch", _fetch),
        story.step("flaky", _flaky, retry=AT_ONCE),
        Step.map("each", items_path="fetch.rows", iterator=_item(story), max_concurrency=3),
        story.step("turn", _turn),
        Step.choice("again", lambda context: int(str(context.params["turns"])) < 3, "turn", "load"),
        Step.pipeline("load", "load", {"n": 7}),
        Step.wait("pause", seconds=0.005),
        story.thread_step("last", _sum),
    ]


def _short(story: Story) -> list[Step]:
    """The shortest workflow with each kind of step."""
    inner = Workflow("item", [story.step("a", lambda context: {"a": 1}), story.step("b", lambda context: {"b": 2})])
    return [
        story.step("fetch", _fetch),
        story.step("flaky", _flaky, retry=AT_ONCE),
        Step.map("each", items=[1, 2], iterator=inner, max_concurrency=2),
        story.step("turn", _turn),
        Step.choice("again", lambda context: int(str(context.params["turns"])) < 2, "turn", "load"),
        Step.pipeline("load", "load", {"n": 7}),
        Step.wait("pause", seconds=0.001),
        story.step("last", lambda context: {"turns": context.params["turns"]}),
    ]


def _lambda(story: Story) -> list[Step]:
    return [story.step("one", lambda context: {"n": 1}), story.step("two", lambda context: {"n": 2})]


def _transactions(story: Story) -> list[Step]:
    """Transactions at the beginning, as the last step of an item, and at the end of the run."""
    item = Workflow("item", [story.step("note", lambda context: {"a": 1}), story.transaction("write")])
    return [
        story.transaction("first"),
        Step.map("each", items=[1, 2], iterator=item, max_concurrency=2),
        story.transaction("last"),
    ]


LEDGER = ("each[0]/write", "each[1]/write", "first", "last")
"""What a run of the transactions writes to the ledger, after the id of the run."""


def _nested(story: Story) -> list[Step]:
    """Steps that execute others, inside of each other."""
    deep = Workflow("deep", [Step.parallel("fork", {"x": story.step("x", lambda context: {"x": 1})}), *_lambda(story)])
    each = Step.map("each", items=[1, 2], iterator=Workflow(steps=[Step.workflow("inner", deep)]), max_concurrency=2)
    branches = {"plain": _lambda(story), "nested": [story.step("fetch", _fetch), each]}
    return [
        Step.workflow("child", deep, lambda context: {"n": 7, "day": context.params["day"]}),
        Step.parallel("both", branches, max_concurrency=1),
        story.step("last", lambda context: {"both": sorted(context.get_output("both"))}),
    ]


_CHAPTERS: dict[str, Callable[[Story], list[Step]]] = {
    "journey": _journey,
    "short": _short,
    "lambda": _lambda,
    "transactions": _transactions,
    "nested": _nested,
}


def memory_of(context: WorkflowContext) -> dict[str, Any]:
    """The final context, without the run id and the end of the wait, which differ between runs."""
    kept: dict[str, Any] = context.to_dict()
    kept["outputs"].pop("pause", None)
    return {name: kept[name] for name in ("workflow_name", "params", "outputs", "quality", "partition")}
