"""Agents of Pydantic AI whose model requests and tool calls are recorded."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, PartDeltaEvent, TextPart, TextPartDelta, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from spine_async import (
    MissingExtraError,
    RetryPolicy,
    Step,
    StepError,
    Workflow,
    WorkflowContext,
    WorkflowRunner,
    WorkflowRunnerConfig,
)
from spine_async.integrations.pydantic_ai import SpineDurability, agent_step, durable
from spine_async.storage import MemoryRunStore
from tests.integrations.agents import CITIES, Notes, weather_agent, workflow
from tests.interpreter import ROOT, environment
from tests.service.services import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.allow_blocking,  # the agents, which the library calls, note in a file
]

AGAIN = RetryPolicy(max_attempts=3, backoff="constant", initial_delay=0.001, retryable_errors=lambda error: True)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def runner() -> WorkflowRunner:
    return WorkflowRunner(store=MemoryRunStore(), work=False)


async def start(url: str, folder: Path, how: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.integrations.agents", url, str(folder), how),
        cwd=ROOT,
        env={**os.environ, **environment()},
        stdout=asyncio.subprocess.PIPE,
    )


async def test_a_process_that_is_killed_in_the_third_tool_call_repeats_only_this_call(
    database_url: str, tmp_path: Path, notes: Notes
) -> None:
    is_parallel = database_url.startswith("sqlite")
    how = "parallel" if is_parallel else "sequential"
    first = await start(database_url, tmp_path, how)
    await until(lambda: sum(note.startswith("tool") for note in notes.read()) == 3, within=60)
    await recorded_in(database_url, 3 if is_parallel else 5)
    first.send_signal(signal.SIGKILL)
    await first.wait()
    before = notes.read()
    second = await start(database_url, tmp_path, how)
    printed, _ = await second.communicate()
    assert printed.decode().strip() == "completed Rome: sun, Oslo: sun, Bern: sun"
    added = notes.read()[len(before) :]
    assert added == [f"tool {CITIES[-1]}", f"model {3 if is_parallel else 7}"]


async def recorded_in(url: str, count: int) -> None:
    """Wait until so many calls are recorded, the start time of the run not counted."""
    async with WorkflowRunner(config=WorkflowRunnerConfig(database_url=url), work=False) as observer:

        async def look() -> bool:
            events = [event async for event in observer.events("r")]
            names = [str(event.metadata["name"]) for event in events if event.event_type == "call_recorded"]
            return sum(not name.endswith("run_start_time") for name in names) >= count

        await until(look)


async def test_a_retry_of_the_step_repeats_nothing_that_had_returned(runner: WorkflowRunner, notes: Notes) -> None:
    agent = weather_agent(notes, parallel=True)

    async def answer(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        with durable(context):
            first = await agent.run("How is the weather?", deps=context)
            again = await agent.run("And now?", deps=context)
        if context.attempt < 3:
            raise StepError("lost", category="TRANSIENT")
        return {"first": first.output, "again": again.output, "ids": [first.run_id, again.run_id]}

    result = await runner.execute(Workflow("w", [Step.lambda_("answer", answer, retry=AGAIN)]), run_id="r")
    output = result.context.get_output("answer")
    assert output["first"] == output["again"] == "Rome: sun, Oslo: sun, Bern: sun"
    assert output["ids"] == ["r/answer:1", "r/answer:2"]
    assert sorted(notes.read()) == sorted([*["model 1", "model 3"] * 2, *[f"tool {city}" for city in CITIES] * 2])


async def test_equal_tool_calls_in_one_response_are_two_calls(runner: WorkflowRunner) -> None:
    made: list[str] = []

    def reply(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            call = ToolCallPart("roll", {"sides": 6}, tool_call_id="same")
            return ModelResponse(parts=[call, ToolCallPart("roll", {"sides": 6}, tool_call_id="other")])
        return ModelResponse(parts=[TextPart("done")])

    agent = Agent(FunctionModel(reply), name="dice", capabilities=[SpineDurability()])

    @agent.tool_plain
    def roll(sides: int) -> int:
        made.append("roll")
        return len(made)

    result = await runner.execute(Workflow("w", [agent_step("play", agent)]), params={"prompt": "go"})
    parts = [part for each in result.context.get_output("play", "messages") for part in each["parts"]]
    assert sorted(part["content"] for part in parts if part["part_kind"] == "tool-return") == [1, 2]


async def test_a_tool_that_asks_for_a_retry_is_recorded_and_asked_again(runner: WorkflowRunner) -> None:
    asked: list[str] = []

    def reply(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) < 5:
            return ModelResponse(parts=[ToolCallPart("find", {"name": f"n{len(messages)}"})])
        return ModelResponse(parts=[TextPart("found")])

    agent = Agent(FunctionModel(reply), name="finder", capabilities=[SpineDurability()], deps_type=WorkflowContext)

    @agent.tool
    def find(ctx: RunContext[WorkflowContext], name: str) -> str:
        asked.append(name)
        if name == "n1":
            raise ModelRetry("no such name; try another one")
        return "yes"

    async def answer(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        with durable(context):
            result = await agent.run("Find it", deps=context)
        if context.attempt < 3:
            raise StepError("lost", category="TRANSIENT")
        return {"output": result.output}

    result = await runner.execute(Workflow("w", [Step.lambda_("answer", answer, retry=AGAIN)]))
    assert result.context.get_output("answer") == {"output": "found"}
    assert asked == ["n1", "n3"]


async def test_tokens_are_emitted_while_the_model_answers_and_not_again(runner: WorkflowRunner) -> None:
    async def emit(ctx: RunContext[WorkflowContext], events: AsyncIterable[Any]) -> None:
        async for event in events:
            if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                ctx.deps.emit("token", event.delta.content_delta)

    agent = Agent(
        TestModel(custom_output_text="all is well today"),
        name="chat",
        deps_type=WorkflowContext,
        capabilities=[SpineDurability(event_stream_handler=emit)],
    )

    async def answer(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
        with durable(context):
            result = await agent.run("Hello", deps=context)
        if context.attempt == 1:
            raise StepError("lost", category="TRANSIENT")
        return {"output": result.output}

    result = await runner.execute(Workflow("w", [Step.lambda_("answer", answer, retry=AGAIN)]), run_id="r")
    tokens = [event.metadata["data"] async for event in runner.events("r") if event.event_type == "token"]
    assert result.context.get_output("answer") == {"output": "all is well today"}
    assert "".join(str(token) for token in tokens).replace(" ", "") == "alliswelltoday"


async def test_an_agent_inside_of_a_tool_is_part_of_the_call(runner: WorkflowRunner) -> None:
    inner = Agent(TestModel(custom_output_text="inner"), name="inner", capabilities=[SpineDurability()])
    outer = Agent(TestModel(), name="outer", capabilities=[SpineDurability()])

    @outer.tool_plain
    async def ask() -> str:
        return str((await inner.run("?")).output)

    await runner.execute(Workflow("w", [agent_step("answer", outer)]), params={"prompt": "hi"}, run_id="r")
    names = [str(event.metadata["name"]) async for event in runner.events("r") if event.event_type == "call_recorded"]
    assert sum("call_tool:ask" in name for name in names) == 1
    assert not any(name.startswith("inner") for name in names)


async def test_outside_of_a_step_the_agent_runs_as_without_the_capability(notes: Notes) -> None:
    agent = weather_agent(notes, parallel=True)
    result = await agent.run("How is the weather?", deps=WorkflowContext())
    assert result.output == "Rome: sun, Oslo: sun, Bern: sun"


class Answer(BaseModel):
    text: str


async def test_a_step_takes_prompt_deps_and_history_from_the_context(runner: WorkflowRunner) -> None:
    seen: list[Any] = []
    agent = Agent(
        TestModel(custom_output_args={"text": "yes"}),
        name="a",
        output_type=Answer,
        deps_type=str,
        capabilities=[SpineDurability()],
    )

    @agent.instructions
    def note(ctx: RunContext[str]) -> str:
        seen.append((ctx.deps, len(ctx.messages)))
        return "Be brief."

    def deps(context: WorkflowContext) -> str:
        return f"user {context.params['user']}"

    steps = [
        agent_step("first", agent, prompt=lambda context: f"Hello from {context.params['user']}", deps=deps),
        agent_step(
            "second", agent, deps=deps, history=lambda context: context.get_output("first", "messages"), timeout=30
        ),
    ]
    result = await runner.execute(Workflow("w", steps), params={"user": "ann", "prompt": "And?"})
    assert result.context.get_output("first", "output") == {"text": "yes"}
    assert len(result.context.get_output("second", "messages")) > len(result.context.get_output("first", "messages"))
    assert {each for each, _ in seen} == {"user ann"}
    assert result.context.get_output("second", "usage")["requests"] == 1


async def test_the_whole_workflow_is_stored_as_one_run(runner: WorkflowRunner, notes: Notes) -> None:
    result = await runner.execute(workflow(notes, parallel=False), params={"prompt": "How?"}, run_id="r")
    assert result.completed_steps == ["answer"]
    assert [record.run_id for record in await runner.list_runs()] == ["r"]


def test_without_pydantic_ai_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import spine_async.integrations.pydantic_ai as module  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(MissingExtraError, match=r"spine-async\[pydantic-ai\]"):
        importlib.import_module(module.__name__)
