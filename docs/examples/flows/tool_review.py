"""An agent proposes a command, a person reviews it, and only then it is executed. No call of the model is repeated."""

from __future__ import annotations

from typing import Any

from spine_async import END, Step, Workflow, WorkflowContext


async def ask_model(prompt: str) -> dict[str, str]:
    """Stands for a request to a model, which costs money and answers differently each time."""
    return {"command": f"archive {prompt}", "reason": "it is old"}


async def execute(command: str) -> str:
    """Stands for a tool with an effect."""
    return f"done: {command}"


async def propose(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    plan: dict[str, Any] = await context.once("plan", ask_model, context.params["task"])
    context.emit("proposed", {"command": plan["command"]})
    return plan


def is_approved(context: WorkflowContext) -> bool:
    return bool(context.get_output("review", "value")["approved"])


async def act(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    answer = context.get_output("review", "value")
    command = answer.get("edited") or context.get_output("propose", "command")
    return {"result": await context.once("tool", execute, command)}


WORKFLOW = Workflow(
    "assistant",
    [
        Step.lambda_("propose", propose),
        Step.wait_for_signal("review"),
        Step.choice("approved", is_approved, then_step="act", else_step=END),
        Step.lambda_("act", act),
    ],
)
