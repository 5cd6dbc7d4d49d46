"""An agent that notes its model requests and tool calls in a file, and a program that executes one run of it."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from spine_async import Workflow, WorkflowContext, WorkflowRunner, WorkflowRunnerConfig
from spine_async.integrations.pydantic_ai import SpineDurability, agent_step

CITIES = ("Rome", "Oslo", "Bern")


class Notes:
    """Lines that all processes append to one file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notes"

    def add(self, what: str) -> None:
        with self._path.open("a") as file:
            file.write(what + "\n")

    def read(self) -> list[str]:
        return self._path.read_text().split("\n")[:-1] if self._path.exists() else []


def weather_agent(notes: Notes, *, parallel: bool) -> Agent[WorkflowContext, str]:
    """An agent that asks for the weather of three cities, in one request or in three; the third call hangs at first."""

    def reply(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        notes.add(f"model {len(messages)}")
        parts = [part for each in messages if isinstance(each, ModelRequest) for part in each.parts]
        known = [part for part in parts if isinstance(part, ToolReturnPart)]
        left = CITIES[len(known) :]
        if left:
            asked = left if parallel else left[:1]
            return ModelResponse(parts=[ToolCallPart("weather", {"city": city}) for city in asked])
        return ModelResponse(parts=[TextPart(", ".join(str(part.content) for part in known))])

    agent = Agent(FunctionModel(reply), name="weather", deps_type=WorkflowContext, capabilities=[SpineDurability()])

    @agent.tool
    async def weather(ctx: RunContext[WorkflowContext], city: str) -> str:
        is_first = f"tool {city}" not in notes.read()
        notes.add(f"tool {city}")
        if city == CITIES[-1] and is_first and ctx.deps.params.get("hangs"):
            await anyio.sleep_forever()
        return f"{city}: sun"

    return agent


def workflow(notes: Notes, *, parallel: bool) -> Workflow:
    return Workflow("weather", [agent_step("answer", weather_agent(notes, parallel=parallel))])


async def main(url: str, folder: str, how: str) -> None:
    notes = Notes(Path(folder))
    runner = WorkflowRunner(config=WorkflowRunnerConfig(database_url=url, trace_enabled=False))
    params = {"prompt": "How is the weather?", "hangs": True}
    result = await runner.execute(workflow(notes, parallel=how == "parallel"), params=params, run_id="r")
    print(result.status.value, result.context.get_output("answer", "output"), flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
