"""Where the items of a map come from, what each item sees, and what comes out."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import anyio
import pytest

from spine_async import Step, StepResult, Workflow, WorkflowContext, WorkflowRunner

pytestmark = pytest.mark.anyio


async def double(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"twice": context.params["item"] * 2}


async def produces(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"orders": [1, 2, 3]}


async def numbers() -> AsyncIterator[int]:
    for number in (1, 2, 3):
        yield number


class Numbers:
    def __iter__(self) -> Iterator[int]:
        return iter((1, 2, 3))


async def numbers_of(context: WorkflowContext) -> AsyncIterator[int]:
    for number in context.get_output("source", "orders"):
        yield number


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(lambda: [1, 2, 3], id="list"),
        pytest.param(lambda: (1, 2, 3), id="tuple"),
        pytest.param(lambda: range(1, 4), id="range"),
        pytest.param(lambda: (n for n in (1, 2, 3)), id="generator"),
        pytest.param(Numbers, id="iterable"),
        pytest.param(numbers, id="async generator"),
        pytest.param(lambda: lambda context: context.get_output("source", "orders"), id="function, list"),
        pytest.param(lambda: lambda context: (n for n in context.params["list"]), id="function, generator"),
        pytest.param(lambda: lambda context: numbers(), id="function, async iterable"),
        pytest.param(lambda: numbers_of, id="async generator function"),
    ],
)
async def test_items(runner: WorkflowRunner, items: Any) -> None:
    steps = [Step.lambda_("source", produces), Step.map("each", items=items(), iterator=double)]
    result = await runner.execute(Workflow("w", steps), params={"list": [1, 2, 3]})
    assert result.error is None
    assert result.context.get_output("each") == {
        "results": [{"twice": 2}, {"twice": 4}, {"twice": 6}],
        "succeeded": 3,
        "failed": 0,
        "errors": [],
    }


@pytest.mark.parametrize("path", ["list", "source.orders"])
async def test_items_path(runner: WorkflowRunner, path: str) -> None:
    steps = [Step.lambda_("source", produces), Step.map("each", items_path=path, iterator=double)]
    result = await runner.execute(Workflow("w", steps), params={"list": [1, 2, 3]})
    assert result.error is None
    assert result.context.get_output("each", "results") == [{"twice": 2}, {"twice": 4}, {"twice": 6}]


@pytest.mark.parametrize("path", ["nothing", "source.nothing", "nowhere.orders"])
async def test_a_path_to_nothing_fails_the_step(runner: WorkflowRunner, path: str) -> None:
    steps = [Step.lambda_("source", produces), Step.map("each", items_path=path, iterator=double)]
    result = await runner.execute(Workflow("w", steps), params={"list": [1]})
    assert (result.status, result.error_step) == ("failed", "each")
    assert path in str(result.error)


async def test_a_function_that_returns_no_items_fails_the_step(runner: WorkflowRunner) -> None:
    items: Any = lambda context: 5  # noqa: E731
    result = await runner.execute(Workflow("w", [Step.map("each", items=items, iterator=double)]))
    assert (result.status, result.error_step) == ("failed", "each")
    assert "int" in str(result.error)


async def test_a_function_that_raises_fails_the_step(runner: WorkflowRunner) -> None:
    def items(context: WorkflowContext) -> list[int]:
        raise LookupError("no folder")

    result = await runner.execute(Workflow("w", [Step.map("each", items=items, iterator=double)]))
    assert (result.status, result.error_step) == ("failed", "each")
    assert "LookupError" in str(result.error)
    assert "no folder" in str(result.error)


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
async def test_a_source_that_breaks_off_fails_the_step(runner: WorkflowRunner, kind: str) -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise ConnectionError("line dropped")

    async def breaks_async() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError("line dropped")

    items: Any = breaks() if kind == "iterable" else breaks_async()
    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", [Step.map("each", items=items, iterator=double)]))
    assert (result.status, result.error_step) == ("failed", "each")
    assert "line dropped" in str(result.error)


async def test_no_items_at_all(runner: WorkflowRunner) -> None:
    result = await runner.execute(Workflow("w", [Step.map("each", items=[], iterator=double)]))
    assert result.context.get_output("each") == {"results": [], "succeeded": 0, "failed": 0, "errors": []}


async def test_results_are_in_the_order_of_the_items(runner: WorkflowRunner) -> None:
    finished = [anyio.Event() for _ in range(5)]
    order = []

    async def last_first(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        item = context.params["item"]
        if item < 4:
            await finished[item + 1].wait()
        order.append(item)
        finished[item].set()
        return {"item": item}

    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", [Step.map("each", items=range(5), iterator=last_first)]))
    assert order == [4, 3, 2, 1, 0]
    assert result.context.get_output("each", "results") == [{"item": n} for n in range(5)]


async def test_the_parameter_of_the_item(runner: WorkflowRunner) -> None:
    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"params": dict(context.params)}

    step = Step.map("each", items=["a"], iterator=reads, item_param="letter")
    result = await runner.execute(Workflow("w", [step]), params={"kept": 1})
    assert result.context.get_output("each", "results") == [{"params": {"kept": 1, "letter": "a"}}]


@pytest.mark.parametrize("name", ["inner", None])
async def test_the_result_of_an_item_is_the_output_of_its_last_step(runner: WorkflowRunner, name: str | None) -> None:
    async def add(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, int]:
        return {"sum": context.get_output("first", "twice") + 1}

    steps = [Step.lambda_("first", double), Step.lambda_("second", add)]
    iterator = Workflow(name, steps) if name else Workflow(steps=steps)
    result = await runner.execute(Workflow("w", [Step.map("each", items=[1, 2], iterator=iterator)]))
    assert result.context.get_output("each", "results") == [{"sum": 3}, {"sum": 5}]


async def test_the_last_step_that_ran_counts(runner: WorkflowRunner) -> None:
    async def label(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"ran": context.step_name}

    iterator = Workflow(
        steps=[
            Step.choice("size", lambda context: context.params["item"] > 1, "large", "small"),
            Step.lambda_("small", label, next_step="end"),
            Step.lambda_("large", label),
            Step.choice("end", lambda context: True, "end2", "end2"),
            Step.lambda_("end2", label),
        ]
    )
    short = Workflow(
        steps=[
            Step.choice("size", lambda context: context.params["item"] > 1, "large", "small"),
            Step.lambda_("large", label),
            Step.lambda_("small", label),
        ]
    )
    steps = [
        Step.map("joined", items=[1, 2], iterator=iterator),
        Step.map("short", items=[1], iterator=short),
    ]
    result = await runner.execute(Workflow("w", steps))
    assert result.context.get_output("joined", "results") == [{"ran": "end2"}, {"ran": "end2"}]
    assert result.context.get_output("short", "results") == [{"ran": "small"}]


async def test_an_item_reads_the_parents_outputs_and_may_shadow_them(runner: WorkflowRunner) -> None:
    async def own(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"orders": ["own", context.get_output("source", "orders")]}

    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"seen": context.get_output("source", "orders")}

    iterator = Workflow(steps=[Step.lambda_("source", own), Step.lambda_("reads", reads)])
    steps = [
        Step.lambda_("source", produces),
        Step.map("each", items=[1, 2], iterator=iterator),
        Step.lambda_("after", reads),
    ]
    result = await runner.execute(Workflow("w", steps))
    assert result.context.get_output("each", "results") == [{"seen": ["own", [1, 2, 3]]}] * 2
    assert result.context.get_output("after", "seen") == [1, 2, 3]
    assert not result.context.has_output("reads")


async def test_nothing_leaks_from_an_item(runner: WorkflowRunner) -> None:
    async def updates(context: WorkflowContext, config: Mapping[str, Any]) -> StepResult:
        before = dict(context.params)
        return StepResult.ok({"before": before}, context_updates={"mark": context.params["item"]})

    async def reads(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"mark": context.params["mark"], "before": context.get_output("updates", "before")}

    iterator = Workflow(steps=[Step.lambda_("updates", updates), Step.lambda_("reads", reads)])
    step = Step.map("each", items=[1, 2, 3], iterator=iterator, max_concurrency=1)
    result = await runner.execute(Workflow("w", [step]), params={"kept": True})
    assert result.context.get_output("each", "results") == [
        {"mark": n, "before": {"kept": True, "item": n}} for n in (1, 2, 3)
    ]
    assert dict(result.context.params) == {"kept": True}


async def test_maps_in_maps(runner: WorkflowRunner) -> None:
    async def pair(context: WorkflowContext, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"pair": [context.params["outer"], context.params["inner"]]}

    inner = Step.map("inner", items=["a", "b"], item_param="inner", iterator=pair)
    step = Step.map("outer", items=[1, 2], item_param="outer", iterator=Workflow(steps=[inner]))
    result = await runner.execute(Workflow("w", [step]))
    seen = [[p["pair"] for p in one["results"]] for one in result.context.get_output("outer", "results")]
    assert seen == [[[1, "a"], [1, "b"]], [[2, "a"], [2, "b"]]]


async def test_items_are_not_read_far_ahead(runner: WorkflowRunner) -> None:
    taken = []

    def many() -> Iterator[int]:
        for number in range(2_000):
            taken.append(number)
            yield number

    async def fails_at_five(context: WorkflowContext, config: Mapping[str, Any]) -> None:
        if context.params["item"] == 5:
            raise ValueError("five")

    step = Step.map("each", items=many(), iterator=fails_at_five, max_concurrency=2, collect=False)
    with anyio.fail_after(10):
        result = await runner.execute(Workflow("w", [step]))
    assert (result.status, result.error_step) == ("failed", "each")
    assert len(taken) < 100
