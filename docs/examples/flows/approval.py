"""An expense report that somebody approves, or that goes to the manager's manager after two days."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from spine_async import END, Step, StepResult, Workflow, WorkflowContext


class Decision(BaseModel):
    """What an approver sends."""

    approved: bool
    by: str


async def check(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"total": sum(context.params["amounts"])}


def is_small(context: WorkflowContext) -> bool:
    return bool(context.get_output("check", "total") < 100)


async def escalate(context: WorkflowContext, config: dict[str, Any]) -> dict[str, Any]:
    return {"to": "the manager's manager"}


async def pay(context: WorkflowContext, config: dict[str, Any]) -> StepResult:
    decisions = [context.get_output(step, "value") for step in ("ask", "ask_again")]
    decision = next((each for each in decisions if each is not None), None)
    if decision is not None and not decision.approved:
        return StepResult.ok({"paid": 0, "by": decision.by})
    return StepResult.ok({"paid": context.get_output("check", "total"), "by": decision.by if decision else "rule"})


WORKFLOW = Workflow(
    "expense",
    [
        Step.lambda_("check", check),
        Step.choice("small", is_small, then_step="pay", else_step="ask"),
        Step.wait_for_signal("ask", model=Decision, timeout=timedelta(days=2), on_timeout="escalate", next_step="pay"),
        Step.lambda_("escalate", escalate),
        Step.wait_for_signal("ask_again", signal="ask", model=Decision),
        Step.lambda_("pay", pay, next_step=END),
    ],
)
