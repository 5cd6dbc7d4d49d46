"""`StepResult.ok(append=…)`: lists grow by what is added, in memory, in the database and after a resume."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field
from sqlalchemy.engine import make_url

from spine_async import END, Step, StepResult, Workflow, WorkflowContext, WorkflowRunner
from tests.control.conftest import Trace
from tests.service.places import Place

pytestmark = pytest.mark.anyio


def appending(name: str, *elements: Any, param: str = "messages", **options: Any) -> Step:
    def handler(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(append={param: list(elements)})

    return Step.lambda_(name, handler, **options)


def reading(seen: list[Any], name: str = "read") -> Step:
    def handler(context: WorkflowContext, config: dict[str, Any]) -> None:
        seen.append(context.params["messages"])

    return Step.lambda_(name, handler)


async def test_later_steps_see_the_whole_list(place: Place, trace: Trace) -> None:
    """In the run, after a resume, and in the stored result."""
    seen: list[Any] = []
    steps = [
        appending("a", 1, "zwei"),
        reading(seen),
        appending("b"),
        appending("c", {"n": [3]}),
        reading(seen, "again"),
    ]
    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", [*steps, trace.failing("last")]), params={"messages": [0]}, run_id="r")
    last = Workflow("w", [*steps, reading(seen, "last")])
    async with place.runner(work=False) as other:
        result = await other.resume("r", workflow=last)
    async with place.runner(work=False) as third:
        stored = await third.execute(last, params={"messages": [0]}, run_id="r")
        checkpoints = {each.step_name: each.context_snapshot async for each in pages(third)}
    whole = [0, 1, "zwei", {"n": [3]}]
    assert seen == [[0, 1, "zwei"], whole, whole]
    assert result.context.params["messages"] == stored.context.params["messages"] == whole
    assert pickle.loads(pickle.dumps(result)).context.params["messages"] == whole
    assert [checkpoints[step]["params"]["messages"] for step in "abc"] == [[0, 1, "zwei"], [0, 1, "zwei"], whole]


async def pages(runner: WorkflowRunner) -> Any:
    for each in await runner.list_checkpoints("r"):
        yield each


async def test_a_missing_param_becomes_the_list(place: Place) -> None:
    seen: list[Any] = []
    async with place.runner(work=False) as runner:
        result = await runner.execute(
            Workflow("w", [appending("a"), reading(seen), appending("b", 1), reading(seen, "c")])
        )
    assert (result.status, seen) == ("completed", [[], [1]])


async def test_a_param_that_is_no_list_fails_the_step(memory: Place) -> None:
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [appending("a", 1)]), params={"messages": {"secret": 1}})
    assert (result.status, result.error_step, result.error_category) == ("failed", "a", "CONFIGURATION")
    assert result.error == "step 'a' appends to param 'messages', which is not a list; set it with context_updates"


async def test_a_list_that_becomes_too_large_fails_the_step(memory: Place) -> None:
    workflow = Workflow("w", [appending("a", "x" * 600), appending("b", "x" * 600)])
    async with memory.runner(config={"max_value_bytes": 1024}) as runner:
        result = await runner.execute(workflow)
    assert (result.status, result.error_step) == ("failed", "b")
    assert "step 'b' appends to param 'messages', which then has 1,208 bytes" in (result.error or "")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"append": ["a"]}, "append is of type list; it must be a mapping of names to lists"),
        ({"append": {"messages": "text"}}, "append['messages'] is of type str; it must be a list of elements"),
        ({"append": {"messages": [1]}, "context_updates": {"messages": []}}, "both change param 'messages'"),
    ],
)
async def test_what_is_no_list_of_elements_fails_the_step(memory: Place, options: dict[str, Any], problem: str) -> None:
    def handler(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(**options)

    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [Step.lambda_("a", handler)]))
    assert (result.status, problem in (result.error or "")) == ("failed", True), result.error


async def test_an_element_without_a_json_form_fails_the_step(memory: Place) -> None:
    async with memory.runner() as runner:
        result = await runner.execute(Workflow("w", [appending("a", {"x": float("nan")})]))
    assert ".append.messages[0].x: NaN and Infinity have no JSON form" in (result.error or "")


async def test_a_whole_list_replaces_what_was_appended_before(place: Place) -> None:
    seen: list[Any] = []

    def replaces(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(context_updates={"messages": ["new"]}, append={"log": ["replaced"]})

    steps = [appending("a", 1), Step.lambda_("b", replaces), appending("c", 2), reading(seen)]
    async with place.runner(work=False) as runner:
        result = await runner.execute(Workflow("w", steps), run_id="r")
        (last,) = [each for each in await runner.list_checkpoints("r") if each.step_name == "read"]
    assert seen == [["new", 2]]
    assert result.context.params["log"] == ["replaced"]
    assert last.context_snapshot["params"] == {"messages": ["new", 2], "log": ["replaced"]}


async def test_an_item_extends_its_own_copy_of_the_list(place: Place) -> None:
    seen: list[Any] = []

    def handler(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(append={"messages": [context.params["item"]]})

    inner = Workflow(steps=[Step.lambda_("add", handler), appending("more", "more"), reading(seen, "look")])
    each = Step.map("each", items=["x", "y"], iterator=inner, max_concurrency=1)
    steps = [appending("a", 1), each, reading(seen)]
    async with place.runner(work=False) as runner:
        await runner.execute(Workflow("w", steps), run_id="r")
        checkpoint = await runner.get_checkpoint("r", "each[1]/look")
    assert seen == [[1, "x", "more"], [1, "y", "more"], [1]]
    assert checkpoint is not None
    assert checkpoint.context_snapshot["params"]["messages"] == [1, "y", "more"]  # type: ignore[index]


async def test_a_field_of_the_params_model_has_the_list_under_all_its_names(memory: Place) -> None:
    class Params(BaseModel):
        messages: list[str] = Field(default_factory=list, alias="msgs")

    seen: list[Any] = []

    def handler(context: WorkflowContext, config: dict[str, Any]) -> None:
        seen.append((context.params["messages"], context.params["msgs"]))

    workflow = Workflow("w", [appending("a", "x"), Step.lambda_("b", handler)], params_model=Params)
    async with memory.runner() as runner:
        await runner.execute(workflow, params={"msgs": ["a"]})
    assert seen == [(["a", "x"], ["a", "x"])]


async def test_the_view_has_the_whole_list(database_url: str, sql: Any) -> None:
    """Also odd elements, empty lists, lists of items, and texts that look like JSON."""
    odd: list[Any] = ["]", '","', "nul\x00", {"a": [[]]}, None, 2**70]
    inner = Workflow(steps=[appending("in", "inner"), appending("in2", param="own")])
    steps = [
        appending("a"),
        appending("b", *odd),
        Step.map("each", items=[1], iterator=inner),
        appending("c", param="fresh"),
        appending("d", 1, param="fresh"),
    ]
    async with Place(database_url).runner(work=False) as runner:
        await runner.execute(Workflow("w", steps), params={"messages": [[]], "n": 7}, run_id="r")
        checkpoints = {each.path: each.context_snapshot for each in await runner.list_checkpoints("r")}
    query = "SELECT path, context_snapshot FROM core_workflow_checkpoints WHERE run_id = 'r'"
    rows = {row["path"]: json.loads(row["context_snapshot"]) for row in sql(query)}
    assert rows == checkpoints
    assert rows["d"]["params"] == {"messages": [[], *odd], "n": 7, "fresh": [1]}
    assert rows["each[0]/in2"]["params"]["messages"] == [[], *odd, "inner"]
    assert rows["each[0]/in2"]["params"]["own"] == []


def _loop(turns: int) -> Workflow:
    def turn(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
        return StepResult.ok(context_updates={"n": context.params["n"] + 1}, append={"messages": ["x" * 1024]})

    steps = [Step.lambda_("turn", turn), Step.choice("more", lambda context: context.params["n"] < turns, "turn", END)]
    return Workflow("loop", steps, defaults={"n": 0})


async def test_a_loop_that_appends_stores_each_element_once(database_url: str, sql: Any) -> None:
    """1,000 turns of 1 KB take twice the bytes of 500, and little more than the elements."""
    sizes = {}
    async with Place(database_url).runner(work=False) as runner:
        for turns in (500, 1000):
            result = await runner.execute(_loop(turns), run_id=f"r{turns}")
            assert len(result.context.params["messages"]) == turns
            sizes[turns] = _bytes_of(sql, f"r{turns}")
    assert sizes[500] > 500 * 1024
    assert sizes[1000] < 2.05 * sizes[500]
    assert sizes[1000] < 1.6 * 1000 * 1024


def _bytes_of(sql: Any, run_id: str) -> int:
    texts = (
        "path",
        "output",
        "updates",
        "appends",
        "step_name",
        "scope",
        "error",
        "commit_id",
        "item_params",
        "quality",
    )
    columns = " + ".join(f"COALESCE(length({name}), 0)" for name in texts)
    query = "SELECT sum({} + 100) AS bytes FROM {} WHERE run = (SELECT id FROM core_workflow_runs WHERE run_id = '{}')"
    rows = sql(query.format(columns, "core_workflow_steps", run_id))
    events = sql(query.format("length(metadata)", "core_workflow_event_log", run_id))
    return int(rows[0]["bytes"]) + int(events[0]["bytes"] or 0)


async def test_the_file_of_such_a_loop_grows_in_proportion(sqlite_url: str) -> None:
    file = Path(make_url(sqlite_url).database or "")
    sizes = []
    for turns in (500, 1000):
        async with Place(sqlite_url).runner(work=False) as runner:
            await runner.execute(_loop(turns), run_id=f"r{turns}")
        sizes.append(file.stat().st_size)
    assert sizes[1] - sizes[0] < 2.2 * sizes[0]
