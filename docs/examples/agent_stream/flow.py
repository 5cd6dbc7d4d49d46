"""An agent as a workflow: the model speaks, a tool answers, and so on until the model calls no tool.

Each message is a step of its own. A process that dies in the third one repeats neither the first two nor their tools.
"""

from __future__ import annotations

from typing import Any

from model import ToolCall, count, reply

from spine_async import END, Step, StepResult, Workflow, WorkflowContext


async def speak(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    """Stream one message of the model: each token is an event of the run."""
    text, argument = "", None
    async for part in reply(context.params["messages"]):
        if isinstance(part, ToolCall):
            argument = part.argument
        else:
            context.emit("token", part)
            text += part
    return StepResult.ok({"text": text, "count": argument}, append={"messages": [{"role": "model", "text": text}]})


def calls_tool(context: WorkflowContext) -> bool:
    return context.get_output("speak", "count") is not None


async def use_tool(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    answer = await count(context.get_output("speak", "count"))
    return StepResult.ok({"answer": answer}, append={"messages": [{"role": "tool", "text": answer}]})


WORKFLOW = Workflow(
    "chat",
    [
        Step.lambda_("speak", speak),
        Step.choice("calls_tool", calls_tool, then_step="use_tool", else_step=END),
        Step.lambda_("use_tool", use_tool, next_step="speak"),
    ],
)
